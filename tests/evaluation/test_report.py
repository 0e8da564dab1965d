"""The report holds what was found, needs nothing beside it, and works in a real browser.

The browser is Debian's `chromium` with `chromium-driver` (`make browser` installs them); without it those tests skip.
"""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from kits_ml.evaluation import report
from kits_ml.evaluation.calibration import CalibrationCounter
from kits_ml.evaluation.case_slices import slices_of_case
from kits_ml.evaluation.measured import measure_case
from kits_ml.evaluation.summary import summarise_evaluation
from tests.conftest import body, requests_of

SPACING_MM = (3.0, 0.8, 0.8)
WIDTHS = (1280, 390)


def _evaluate(name: str, *, shift: int, seed: int, rank: str):
    """A case whose prediction lies some columns off, with probabilities that say so: scores and slices."""
    image, true = body(num_slices=12, size=64, seed=seed)
    pred = np.roll(true, shift, axis=2)
    probabilities = np.where(pred[None] == np.arange(3)[:, None, None, None], 0.8, 0.1).astype(np.float32)
    counter = CalibrationCounter(true, spacing_mm=SPACING_MM)
    for index in range(len(true)):
        counter(index, (slice(0, 64), slice(0, 64)), probabilities[:, index])
    scores = measure_case(
        name,
        label_map_true=true,
        label_map_pred=pred,
        spacing_mm=SPACING_MM,
        image=image,
        calibration=counter.result(),
    )
    return scores, slices_of_case(image, true, pred, spacing_mm=SPACING_MM, case=name, rank=rank)


@pytest.fixture(scope="module")
def evaluated():
    return [
        _evaluate("case_00007", shift=5, seed=1, rank="worst"),
        _evaluate("case_00003", shift=2, seed=2, rank="median"),
        _evaluate("a case with a long name <and> no_place_to_break_it_0123456789", shift=0, seed=3, rank="best"),
    ]


@pytest.fixture(scope="module")
def page(evaluated, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    cases = [case for case, _ in evaluated]
    summary = summarise_evaluation(cases, failures={"broken": "broken.nii.gz: truncated </script><script>oops()"})
    report.write_report(
        path,
        cases,
        summary,
        facts={"model": "models:/kits-unet@champion", "model version": "kits-unet, version 3", "data digest": "0abc"},
        settings={"batch_size": 8, "model: gamma": 1.5, "experiment": None},
        slices=[slices for _, slices in evaluated],
    )
    return path


class _Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def _read(path) -> tuple[list, str]:
    parts = _Parts()
    parts.feed(path.read_text(encoding="utf-8"))
    return parts.tags, " ".join(parts.text)


def test_it_says_what_was_found_and_of_what(page):
    _, text = _read(page)
    for said in (
        *("kits-unet, version 3", "data digest", "0abc", "model: gamma", "batch_size"),
        *("composite Dice (KiTS19)", "surface Dice", "HD95, mm", "true volume, ml"),
        *("contrast: strong", "slice spacing: 1 to 3 mm", "tumour size: under 20 mm"),
        *("tumour, around the kidneys", "called background", "1 not scored: broken.nii.gz: truncated"),
    ):
        assert said in text, said
    rows = re.findall(r'scope="row" class="text">(case_\d+|a case)', page.read_text(encoding="utf-8"))
    assert rows == ["case_00007", "case_00003", "a case"]  # the worst first


CHARTS = {
    "Dice of every case, by region": "distributions",
    "surface Dice of every case, by region": "distributions",
    "HD95 of every case, by region": "distributions",
    "tumour Dice of every case with a tumour against the tumour's true volume": "volumes",
    "Bland-Altman plot of kidney volumes": "volumes",
    "Bland-Altman plot of tumour volumes": "volumes",
    "reliability of the probability of background": "calibration",
    "reliability of the probability of kidney": "calibration",
    "reliability of the probability of tumour": "calibration",
}


@pytest.fixture(scope="module")
def charts(page) -> dict[str, tuple[str, ElementTree.Element]]:
    """The section that each chart stands in, and the chart, by what it says it shows."""
    found = {}
    for section in re.findall(r"<section .*?</section>", page.read_text(encoding="utf-8"), re.DOTALL):
        name = re.match(r'<section id="([^"]+)"', section).group(1)
        for svg in re.findall(r'<svg class="chart".*?</svg>', section, re.DOTALL):
            chart = ElementTree.fromstring(svg)
            found[chart.get("aria-label")] = (name, chart)
    return found


def _marks(chart: ElementTree.Element, kind: str) -> list[str]:
    """What the marks of a kind say under the pointer."""
    return [one.findtext(".//title") for one in chart.iter("g") if one.get("class", "").split()[:1] == [kind]]


def test_every_chart_stands_in_its_section(page, charts):
    assert {label: section for label, (section, _) in charts.items()} == CHARTS
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r'<section id="([^"]+)"><h2>([^<]+)</h2>', text)
    expected = {"distributions": "Every case", "volumes": "Volumes", "cases-seen": "Worst, median and best case"}
    assert expected.items() <= dict(headings).items()
    assert {f"#{name}" for name, _ in headings} <= set(
        re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8"))
    )


def test_a_box_a_region_and_a_point_a_case(charts, evaluated):
    cases = [case for case, _ in evaluated]
    for score, name in (("dice", "Dice"), ("surface_dice", "surface Dice"), ("hd95_mm", "HD95")):
        _, chart = charts[f"{name} of every case, by region"]
        assert [text.split(":")[0] for text in _marks(chart, "box")] == ["kidney", "tumour"]
        expected = [
            f"{case.case}: {getattr(case.regions[region], score):.3g}"
            for region in ("kidney", "tumour")
            for case in cases
        ]
        assert _marks(chart, "mark") == expected


def test_tumour_dice_against_volume_and_the_differences_of_volumes(charts, evaluated):
    cases = [case for case, _ in evaluated]
    _, chart = charts["tumour Dice of every case with a tumour against the tumour's true volume"]
    tumours = {case.case: case.regions["tumour"] for case in cases}
    expected = [f"{case}: {one.volume_true_ml:.3g}, {one.dice:.3g}" for case, one in tumours.items()]
    assert _marks(chart, "mark") == expected
    assert "true tumour volume, ml" in [text.text for text in chart.iter("text")]
    for region in ("kidney", "tumour"):
        _, chart = charts[f"Bland-Altman plot of {region} volumes"]
        found = _marks(chart, "mark")
        for case, text in zip(cases, found, strict=True):
            assert text.startswith(f"{case.case}: mean "), text
            assert text.endswith(f"difference {case.regions[region].volume_error_ml:+.3g} ml")


def test_it_needs_nothing_beside_it(page):
    tags, _ = _read(page)
    for tag, attributes in tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden")
    assert not re.search(r"url\(|@import|https?://", page.read_text(encoding="utf-8"))
    policy = next(attributes["content"] for tag, attributes in tags if "http-equiv" in attributes)
    assert "default-src 'none'" in policy


def test_equal_evaluations_give_equal_pages(evaluated, tmp_path):
    cases = [case for case, _ in evaluated]
    for name in ("a.html", "b.html"):
        report.write_report(tmp_path / name, cases, summarise_evaluation(cases), facts={}, settings={})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_without_images_and_probabilities(evaluated, tmp_path):
    _, true = body()
    case = measure_case("only", label_map_true=true, label_map_pred=None, spacing_mm=SPACING_MM)
    report.write_report(tmp_path / "r.html", [case], summarise_evaluation([case]), facts={}, settings={})
    tags, text = _read(tmp_path / "r.html")
    assert not any(tag == "img" for tag, _ in tags)
    assert "Can its probabilities be believed?" not in text
    assert "Without a prediction, and so with the worst scores there are: only." in text
    assert "no interval from so few" in text


def test_it_stays_small(page):
    assert page.stat().st_size < 1_000_000  # 3 x 12 slices; 3 x 40 and 66 cases then stay below 5 MB


# ---- in a browser


@pytest.mark.parametrize("width", WIDTHS)
def test_it_renders_without_errors_network_or_overflow(page, open_page, width):
    browser = open_page(page, width)
    drawn = browser.execute_script("return [...document.images].map(one => one.naturalWidth)")
    assert len(drawn) == 3
    assert all(drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.get_log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith("data:")] == [page.as_uri()]
    heights = "return [...document.querySelectorAll('svg.chart')].map(one => one.getBoundingClientRect().height)"
    assert min(browser.execute_script(heights)) > 100


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_shows_other_slices(page, open_page, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = open_page(page, width)
    viewer = browser.find_element(By.CSS_SELECTOR, ".viewer")
    slider, picture, output = (viewer.find_element(By.CSS_SELECTOR, one) for one in ("input", "img", "output"))
    path = viewer.find_element(By.CSS_SELECTOR, "path.kidney.truth")
    seen = set()
    slider.send_keys(Keys.HOME)
    for _ in range(6):
        text = output.text
        assert picture.get_attribute("alt") == f"case_00007, {text}"
        assert slider.get_attribute("aria-valuetext") == text
        seen.add((picture.get_attribute("src"), path.get_attribute("d"), text))
        slider.send_keys(Keys.ARROW_RIGHT)
    assert [len({one[part] for one in seen}) for part in (0, 2)] == [6, 6]
    assert len({one[1] for one in seen}) > 1  # the first slice lies above the kidney
    slider.send_keys(Keys.END)
    assert output.text.startswith("slice 11 (of 0 to 11)")
    assert browser.get_log("browser") == []


def test_contours_can_be_hidden(page, open_page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = open_page(page, WIDTHS[0])
    path = browser.find_element(By.CSS_SELECTOR, ".viewer path.kidney.prediction")
    assert path.value_of_css_property("display") != "none"
    browser.find_element(By.CSS_SELECTOR, "input[data-hides=prediction]").send_keys(Keys.SPACE)
    assert path.value_of_css_property("display") == "none"
    truth = browser.find_element(By.CSS_SELECTOR, ".viewer path.kidney.truth")
    assert truth.value_of_css_property("display") != "none"
