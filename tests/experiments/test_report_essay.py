"""The essay says what the results say, is published without a real patient, and can be read on a phone."""

import json
import re

import essay
import numpy as np
import pytest
from training_chapters import REPORT_SAYS
from words import NamedPicture, interval, told_apart

from kits_ml.data import png
from kits_ml.page import Text
from tests.conftest import requests_of

WIDTHS = (1280, 390)
#: One grey pixel.
PNG = png.encode(np.zeros((1, 1), np.uint8))


@pytest.fixture
def found(stage_files):
    """The results as they are read from the files."""
    return essay.results_of(essay.read_records(stage_files))


@pytest.fixture
def written(stage_files, tmp_path):
    """The page and the folder that was published."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "median_patient.png").write_bytes(PNG)
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "README.md").write_text(f"before\n{essay.BEGIN}\nold\n{essay.END}\nafter\n")
    options = {"phantom": tmp_path / "no-phantom", "are_real": True, "publish": folder}
    return essay.write_essay(stage_files, tmp_path, **options), folder


def test_numbers_are_those_of_the_results(written):
    html = written[0].read_text()
    # nothing: f = 0.02 -> (0.98 / 1.02 + 1.98 / 2.02) / 2 = 0.97049
    for text in ("0.9705", "0.4321", "0.600 (0.550 to 0.650)", "0.120 (0.070 to 0.170)", "99.26 %", "12,500", "321"):
        assert text in html, text
    assert "higher, and the interval excludes 0" in html  # the kidney's leak is 0.1, from 0.05 on
    assert "not told apart from 0" in html  # the tumour's is 0.01, from -0.04 on
    assert all(said in html for said in REPORT_SAYS.values())


def test_every_picture_has_words_for_who_cannot_see_it(found):
    parts = essay.chapters(found, predicted={"best": PNG}, are_real=True, slices=PNG)
    shown = [part for part in parts if isinstance(part, NamedPicture)]
    assert len({picture.name for picture in shown}) == len(shown) > 8
    assert all(len(picture.alt) > 20 and len(picture.caption) > 20 for picture in shown)


def test_other_results_give_another_essay(found):
    def words(changed):
        parts = essay.chapters(changed, predicted={}, are_real=True, slices=None)
        return "\n".join(line for part in parts if isinstance(part, Text) for line in part.paragraphs)

    leak = json.loads(json.dumps(found["leakage_phantom"]))
    leak["dice_kidney"]["leak"] = {**leak["dice_kidney"]["leak"], "mean": -0.2, "ci_low": -0.3, "ci_high": -0.1}
    assert "lower, and the interval excludes 0" in words({**found, "leakage_phantom": leak})
    assert "lower, and the interval excludes 0" not in words(found)


def test_a_stage_that_has_not_run_is_named(found):
    assert all(essay.chapters({}, predicted={}, are_real=True, slices=None))
    for name in ("readings", "labels", "grey"):
        rest = {other: result for other, result in found.items() if other != name}
        parts = essay.chapters(rest, predicted={}, are_real=True, slices=None)
        told = [line for part in parts if isinstance(part, Text) for line in part.paragraphs]
        assert f"Not measured yet: run.py --only {name}" in told


def test_real_patients_stay_out_of_what_is_published(written):
    page, folder = written
    assert "data:image/png" in page.read_text()
    assert "data:image/png" not in (folder / "results" / "essay.html").read_text()
    assert not list((folder / "results").glob("*.png"))


def test_the_readme_keeps_what_stands_around_the_essay(written, stage_files, tmp_path):
    _, folder = written
    text = (folder / "README.md").read_text()
    assert text.startswith(f"before\n{essay.BEGIN}\n**MeanIoU")
    assert text.endswith(f"{essay.END}\nafter\n")
    assert "old" not in text.splitlines()
    pictures = re.findall(r"!\[[^\]]+\]\(results/([^)]+)\)", text)
    assert sorted(pictures) == sorted(path.name for path in (folder / "results").glob("*.svg"))
    again = {"phantom": tmp_path / "no-phantom", "are_real": True, "publish": folder}
    essay.write_essay(stage_files, tmp_path, **again)
    assert (folder / "README.md").read_text() == text


def test_a_picture_that_is_no_more_goes_away(written, stage_files, tmp_path):
    _, folder = written
    (folder / "results" / "old.svg").write_bytes(b"")
    essay.write_essay(stage_files, tmp_path, phantom=tmp_path, are_real=True, publish=folder)
    assert not (folder / "results" / "old.svg").exists()


def test_results_are_published_without_a_machine_s_paths(written, results):
    _, folder = written
    assert {name: record["result"] for name, record in essay.published(folder).items()} == results


def test_words_for_numbers():
    found = {"mean": 0.5, "ci_low": None, "ci_high": None}
    assert interval(found) == "0.500 (– to –)"
    assert told_apart(found) == "too few patients to tell"


@pytest.mark.parametrize("width", WIDTHS)
def test_it_can_be_read_on_a_desk_and_on_a_phone(written, open_page, width):
    page, _ = written
    browser = open_page(page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    drawn = browser.execute_script(
        "return [...document.images].map(one => [one.naturalWidth, one.getBoundingClientRect().right, one.alt])"
    )
    assert len(drawn) >= 9
    assert all(natural and right <= width and alt for natural, right, alt in drawn)
    assert browser.get_log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith("data:")] == [page.as_uri()]
    browser.save_screenshot(str(page.with_name(f"{width}.png")))
