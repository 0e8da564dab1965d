"""The page says what the report says, needs nothing beside it, and its viewer works in a real browser."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from kits_ml import labels
from kits_ml.data import volumes
from kits_ml.inference.provenance import ModelSource, Provenance
from kits_ml.inference.quality import assess
from kits_ml.inference.quality_page import render_page
from kits_ml.inference.uncertainty import UncertaintyMeter
from tests.conftest import requests_of

SPACING_MM = (5.0, 4.0, 4.0)
SHAPE = (20, 60, 80)
WIDTHS = (1280, 390)
TRAINING = {"spacing_mm": {"low": [1, 0.6, 0.6], "high": [3, 1, 1]}, "num_cases": 7}


def _scan() -> tuple[np.ndarray, np.ndarray, UncertaintyMeter]:
    image = np.full(SHAPE, -1000, np.int16)
    image[:, 10:50, 8:72] = 40
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[4:14, 20:32, 14:26] = label_map[4:14, 20:32, 54:66] = 1
    label_map[6:12, 22:30, 62:70] = 2
    image[label_map == 1] = 150
    image[label_map == 2] = 80
    meter = UncertaintyMeter(SHAPE)
    meter.entropy[label_map == 2] = 200
    return image, label_map, meter


PROVENANCE = Provenance(
    scan="scan <7> & co.nii.gz",
    models=(ModelSource(address="models:/kits-<unet>/3", sha256={"model.keras": "0123456789abcdef"}),),
    engine="openvino",
    test_time_augmentation="flip_left_right",
    postprocessing={"keep_largest_kidneys": 2, "tumour_contact_mm": None, "minimum_kidney_ml": 20.0},
    note="scan <7> & co.nii.gz: left out 1 SEG",
    kits_ml="9.9",
)


def _render(image, label_map, meter, *, provenance=PROVENANCE) -> str:
    report = assess(
        image, label_map, spacing_mm=SPACING_MM, uncertainty=meter, training=TRAINING, provenance=provenance
    )
    affine = volumes.kits_geometry(SHAPE, SPACING_MM).house_affine
    return render_page(report, image, label_map, affine=affine, read_entropy=meter and (lambda: meter.entropy))


@pytest.fixture(scope="module")
def html() -> str:
    return _render(*_scan())


@pytest.fixture(scope="module")
def path(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "quality.html"
    path.write_text(html, encoding="utf-8")
    return path


def _text(html: str) -> str:
    """What a person reads: no scripts, styles and tags."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL))


def test_it_says_what_the_report_says(html):
    text = " ".join(_text(html).split())
    # 10 x 12 x 12 voxels of 80 mm3 each and 6 x 8 x 4 of the tumour outside: 2 x 115.2 + 15.4 ml; all of it: 30.7 ml
    for said in (
        *("scan &lt;7&gt; &amp; co.nii.gz segmented by kits-&lt;unet&gt; 3", "not a medical device"),
        *("20 x 60 x 80 voxels", "of 5 x 4 x 4 mm"),
        "Found 2 kidneys and 1 tumour: 246 ml of kidney, 30.7 ml of it tumour; 3 flags.",
        "The rows are 4.00 mm apart, but the model was trained on 0.60 to 1.00 mm in its 7 training cases.",
        # the tumour's entropy is 200 / 255
        *("How sure the model is", "label confidence entropy", "kidney 100% 0%", "tumour 100% 78%"),
        *("right 115 0.0", "left 131 30.7", "1 left 30.7", "Look through the scan", "Shown here cut to the body"),
    ):
        assert said in text, said
    assert text.index("3 flags") < text.index("The slices are 5.00 mm apart") < text.index("right 115")


def test_it_says_where_it_comes_from(html):
    text = " ".join(_text(html).split())
    told = text[text.index("Where this comes from") :]
    for said in (
        "scan scan &lt;7&gt; &amp; co.nii.gz model models:/kits-&lt;unet&gt;/3; SHA-256 of model.keras 0123456789abc",
        "engine openvino test-time augmentation flip_left_right",
        "post-processing keep_largest_kidneys 2, tumour_contact_mm off, minimum_kidney_ml 20",
        "flags are raised by fragment_kidney_ml 15,",
        "lowest_kidney_ml 50, highest_kidney_ml 400, highest_tumour_ml 1500, lowest_kidney_confidence 0.8,",
        "kits_ml 9.9",
        "note scan &lt;7&gt; &amp; co.nii.gz: left out 1 SEG",
    ):
        assert said in told, said
    assert "<title>scan &lt;7&gt; &amp; co.nii.gz segmented by kits-&lt;unet&gt; 3</title>" in html


def test_it_needs_nothing_beside_it(html):
    outside = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!data:)", outside)
    assert not re.search(r"url\(|@import|https?://", outside)
    assert "default-src 'none'" in outside
    assert len(re.findall(r'<img src="data:image/png;base64,[^"]{1000,}" alt="[^"]{20,}', outside)) == 3
    assert len(html) < 8e6


def test_what_is_not_known_is_left_out():
    image, label_map, _ = _scan()
    html = _render(image, label_map, None)
    assert 'id="viewer-entropy"' not in html
    assert 'class="entropy"' not in html
    assert "unknown" in _text(html)  # confidence
    assert "How sure the model is" not in html
    assert "Not everything was checked. It is not known on what HU of whole scans the model was trained." in html
    assert "It is not known how sure the model was." in html
    report = assess(image, label_map, spacing_mm=SPACING_MM)  # no training data: nothing else speaks against it
    html = render_page(report, image, label_map, affine=np.eye(4))
    assert "None of the rules that ran found anything that speaks against this prediction." in html


def test_a_prediction_of_nothing():
    image, label_map, meter = _scan()
    html = _render(image, np.zeros_like(label_map), meter)
    text = " ".join(_text(html).split())
    assert "Found no kidneys and no tumours: 0 ml of kidney; 4 flags." in text
    assert text.index("Nothing was found") < text.index("The slices are")
    assert "<button" not in html.split("<script")[0]


# ---- in a browser


def _start(open_page, path, width: int):
    from selenium.webdriver.support.wait import WebDriverWait

    browser = open_page(path, width)
    state = "return document.getElementById('viewer').dataset.state"
    WebDriverWait(browser, 300).until(lambda one: one.execute_script(state) != "loading")
    return browser


def _canvas(browser) -> np.ndarray:
    """What is seen of the canvas, `(rows, columns, 3)`."""
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    browser.execute_async_script(frames)
    picture = browser.find_element("css selector", "#viewer canvas").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def _coloured(canvas: np.ndarray, label: int) -> int:
    """How many pixels lean to a label's colour, as grey ones do not."""
    lean = np.array(labels.LABEL_COLOURS[label]) - np.mean(labels.LABEL_COLOURS[label])
    return int(((canvas - canvas.mean(axis=-1, keepdims=True)) @ (lean / np.linalg.norm(lean)) > 15).sum())


def _set(browser, selector: str, value) -> None:
    script = (
        "const one = document.querySelector(arguments[0]); const value = arguments[1];"
        "if (typeof value === 'boolean') one.checked = value; else one.value = value;"
        "one.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    browser.execute_script(script, selector, value)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_viewer_draws_without_errors_network_or_overflow(path, open_page, width):
    browser = _start(open_page, path, width)
    canvas = _canvas(browser)
    assert (canvas.max(axis=-1) > 60).mean() > 0.1  # not black
    assert _coloured(canvas, labels.KIDNEY) > 200
    assert _coloured(canvas, labels.TUMOUR) > 100
    assert browser.find_element("css selector", "output.place").text == "80 HU, tumour, uncertainty 78 %"  # 200 / 255
    drawn = browser.execute_script("return [...document.images].map(one => one.naturalWidth)")
    assert len(drawn) == 3
    assert all(drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.get_log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def test_the_controls_do_what_they_say(path, open_page):
    browser = _start(open_page, path, WIDTHS[0])
    before = _canvas(browser)
    _set(browser, "input.opacity", 0)
    bare = _canvas(browser)
    assert _coloured(bare, labels.KIDNEY) == 0
    assert browser.find_element("css selector", "output.opacity").text == "0 %"
    _set(browser, "input.entropy", True)
    assert _coloured(_canvas(browser), labels.TUMOUR) > 100  # yellow and red
    _set(browser, "input.entropy", False)
    assert np.abs(_canvas(browser) - bare).max() < 10
    _set(browser, "input.opacity", 100)
    full = _canvas(browser)
    assert _coloured(full, labels.KIDNEY) >= _coloured(before, labels.KIDNEY) > 0
    _set(browser, "select.window", "-1350 150")
    assert np.abs(_canvas(browser) - full).mean() > 5
    browser.find_element("css selector", "button[data-mm]").click()
    assert browser.find_element("css selector", "output.place").text == "150 HU, kidney, uncertainty 0 %"
    _set(browser, "select.planes", "AXIAL")
    assert _coloured(_canvas(browser), labels.KIDNEY) > 1.5 * _coloured(full, labels.KIDNEY)
    assert browser.get_log("browser") == []


def test_without_webgl_the_pictures_are_still_there(path, open_page):
    browser = open_page(path, WIDTHS[0])
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        browser = _start(open_page, path, WIDTHS[1])
        message = browser.find_element("css selector", "#viewer .message").text
        assert message.startswith("The interactive viewer cannot start here: this browser has no WebGL 2.")
        assert not browser.find_element("css selector", "#viewer canvas").is_displayed()
        assert all(browser.execute_script("return [...document.images].map(one => one.naturalWidth)"))
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
