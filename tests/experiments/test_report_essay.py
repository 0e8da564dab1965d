"""The essay says what the results say, is published without a real patient, and can be read on a phone."""

import re
from pathlib import Path

import essay
import mending_chapter
import numpy as np
import pytest
import training_chapters
from stages import read_record
from steps import TRAINED_STEPS
from words import NamedPicture

from kits_ml.data import png
from kits_ml.page import Text
from tests.conftest import requests_of

WIDTHS = (1280, 390)
#: One grey pixel.
PNG = png.encode(np.zeros((1, 1), np.uint8))


def _records(folder):
    return {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}


@pytest.fixture(scope="module")
def found(stage_files):
    """The results as they are read from the files."""
    return essay.results_of(_records(stage_files))


@pytest.fixture(scope="module")
def parts(found):
    return essay.chapters(found, predicted={"best": PNG}, are_real=True, slices=PNG)


@pytest.fixture(scope="module")
def written(stage_files, tmp_path_factory):
    """The page and the folder that was published."""
    output = tmp_path_factory.mktemp("essay")
    (output / "pictures").mkdir()
    (output / "pictures" / "median_patient.png").write_bytes(PNG)
    folder = output / "experiment"
    (folder / "results").mkdir(parents=True)
    (folder / "results" / "old.svg").write_bytes(b"")
    (folder / "README.md").write_text("before\n<!-- essay: begin -->\nold\n<!-- essay: end -->\nafter\n")
    options = {"phantom": output / "no-phantom", "are_real": True, "publish": folder}
    return essay.write_essay(_records(stage_files), output, **options), folder


def _words(parts) -> list[str]:
    return [line for part in parts if isinstance(part, Text) for line in part.paragraphs]


def test_numbers_are_those_of_the_results(written):
    html = written[0].read_text()
    # nothing: f = 0.02 -> (0.98 / 1.02 + 1.98 / 2.02) / 2 = 0.97049
    for text in (
        "0.9705",
        "0.4321",
        "0.600 (0.550 to 0.650)",
        "0.120 (0.070 to 0.170)",
        "99.26\u00a0%",
        "12,500",
        "321",
    ):
        assert text in html, text
    assert "+0.100 (0.050 to 0.150), an interval without 0" in html
    assert "+0.010 (-0.040 to 0.060), which cannot be told from 0" in html
    assert all(said in html for said in training_chapters.REPORT_SAYS.values())


def test_no_placeholder_is_left(parts):
    assert not [words for words in _words(parts) if "{" in words]


def test_every_picture_has_words_for_who_cannot_see_it(parts):
    shown = [part for part in parts if isinstance(part, NamedPicture)]
    assert len({picture.name for picture in shown}) == len(shown) > 8
    assert all(len(picture.alt) > 20 and len(picture.caption) > 20 for picture in shown)


def test_other_results_give_another_essay(found):
    def changed(**leak):
        one = found["leakage_phantom"]
        dice = {**one["dice_kidney"], "leak": {**one["dice_kidney"]["leak"], **leak}}
        return "\n".join(_words(training_chapters.leakage({"leakage_phantom": {**one, "dice_kidney": dice}})))

    assert "-0.200 (-0.300 to -0.100), an interval without 0" in changed(mean=-0.2, ci_low=-0.3, ci_high=-0.1)
    assert "+0.000 (– to –), of too few patients to tell" in changed(mean=0.0, ci_low=None, ci_high=None)


def test_a_stage_that_has_not_run_is_named():
    told = _words(essay.chapters({}, predicted={}, are_real=True, slices=None))
    for name in ("readings", "labels", "grey", "leakage_phantom"):
        assert f"Not measured yet: run.py --only {name}" in told


def test_a_series_is_shown_once_it_is_whole(found):
    rest = {name: result for name, result in found.items() if name != "mending_phantom_loss"}
    assert len(mending_chapter.mended(rest)) == 1
    _, _, table, picture = mending_chapter.mended(found)
    assert table.rows[0][0] == "the report's way"
    assert [row[4][:5] for row in table.rows] == ["0.000", "0.100", "0.200", "0.300", "0.400", "0.500", "0.500"]
    assert "400 steps of 8" in picture.caption  # its budget
    assert "One seed each" in table.note


def test_several_seeds_stand_beside_their_mean(found):
    again = {f"{name}_seed1": result for name, result in found.items() if name.startswith("mending_phantom")}
    _, text, table, picture = mending_chapter.mended({**found, **again})
    assert "each 2 times with other seeds" in picture.caption
    assert "mean over the seeds" in table.note
    # one patient shows each region, and each row has 0.1 more than the one above: no interval of one patient
    assert [row[5] for row in table.rows[:2]] == ["", "+0.100 (– to –)"]
    assert text.paragraphs[1].startswith("No single step")


def test_steps_that_hold_up_are_named(found):
    def shown(number):
        result = found[f"mending_phantom_{number}"]
        cases = {f"case_{index}": one for index, one in enumerate([result["last"]["test_by_case"]["case_00000"]] * 3)}
        said = {**result["last"], "test_by_case": cases}
        return {**result, "last": said, "best": said}

    changed = {f"mending_phantom_{step.name}": shown(step.name) for step in TRAINED_STEPS}
    _, text, *_ = mending_chapter.mended({**found, **changed})
    assert "“+ labels by nearest neighbour” +0.100 (kidney)" in text.paragraphs[1]


def test_real_patients_stay_out_of_what_is_published(written):
    page, folder = written
    assert "data:image/png" in page.read_text()
    assert "data:image/png" not in (folder / "results" / "essay.html").read_text()
    assert not list((folder / "results").glob("*.png"))


def test_the_readme_keeps_what_stands_around_the_essay(written):
    _, folder = written
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n<!-- essay: begin -->\n**MeanIoU")
    assert text.endswith("<!-- essay: end -->\nafter\n")
    assert "old" not in text.splitlines()


def test_the_readme_shows_the_pictures_that_are_there_and_no_other_is_left(written):
    _, folder = written
    named = re.findall(r"!\[[^\]]+\]\(results/([^)]+)\)", (folder / "README.md").read_text())
    assert sorted(named) == sorted(path.name for path in (folder / "results").glob("*.svg"))
    assert "old.svg" not in named


def test_results_are_published_without_a_machine_s_paths(written, results):
    _, folder = written
    assert {name: record["result"] for name, record in essay.published(folder).items()} == results


PUBLISHED = Path(essay.__file__).parent


def test_what_is_published_belongs_together():
    records = essay.published(PUBLISHED)
    html = (PUBLISHED / "results" / "essay.html").read_text()
    readme = (PUBLISHED / "README.md").read_text()
    for text in (html, readme):
        assert essay.verdict(essay.results_of(records)) in text
    assert all(f"| {name} |" in readme for name in ("exact", "leakage_thin", "mending_phantom"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["made", "published"])
def test_it_can_be_read_on_a_desk_and_on_a_phone(written, open_page, which, width):
    page = written[0] if which == "made" else PUBLISHED / "results" / "essay.html"
    browser = open_page(page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    drawn = browser.execute_script(
        "return [...document.images].map(one => [one.naturalWidth, one.getBoundingClientRect().right, one.alt])"
    )
    assert len(drawn) >= 9
    assert all(natural and right <= width and alt for natural, right, alt in drawn)
    assert browser.get_log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith("data:")] == [page.as_uri()]
    browser.save_screenshot(str(written[0].with_name(f"{which}_{width}.png")))
