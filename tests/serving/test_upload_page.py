"""The page to upload a scan on, in a real browser; it skips where there is none (make browser)."""

import base64
import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from kits_ml.config import ServeSettings
from kits_ml.serving.server import reporting_of
from tests.serving.conftest import nifti, scan, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium, chromedriver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        *("headless", "no-sandbox", "no-first-run", "disable-background-networking", "disable-dev-shm-usage"),
        *("use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader"),  # the report's viewer wants WebGL
    ):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_window_size(1000, 900)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, served):
    """The page, fresh; afterwards the browser has complained of nothing that the test did not take."""
    browser.get(served.url)
    yield browser
    assert browser.get_log("browser") == []


def _send(page, path) -> None:
    page.find_element("id", "scan").send_keys(str(path))
    page.find_element("id", "send").click()


def _message(page) -> str:
    return page.find_element("id", "message").text


#: What a link would download, as base64.
_FETCH = """
const [id, done] = arguments;
const reader = new FileReader();
reader.onload = () => done(reader.result.split(",")[1]);
fetch(document.getElementById(id).href).then(found => found.blob()).then(blob => reader.readAsDataURL(blob));
"""


def test_a_scan_goes_in_and_the_results_come_out(page, served, tmp_path):
    (tmp_path / "thorax <1>.nii.gz").write_bytes(nifti(scan(), folder=tmp_path))
    page.get_log("performance")
    _send(page, tmp_path / "thorax <1>.nii.gz")
    wait_until(lambda: "done in" in _message(page))
    assert _message(page).startswith("thorax <1>.nii.gz: done in ")
    assert _message(page).endswith("by net/1")
    names = {id: page.find_element("id", id).get_attribute("download") for id in ("segmentation", "report", "page")}
    assert names == {
        "segmentation": "thorax <1>_segmentation.nii.gz",
        "report": "thorax <1>_report.json",
        "page": "thorax <1>_report.html",
    }
    page.switch_to.frame("shown")
    wait_until(lambda: page.find_elements("id", "counts"))
    assert page.find_element("id", "counts").text == f"[{1920 - 126}, 118, 8]"
    page.switch_to.default_content()
    requested = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in page.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {one.partition("?")[0] for one in requested if not one.startswith(("blob:", "data:"))} == {
        f"{served.url}v1/segment"
    }


@pytest.mark.slow
def test_the_real_report_starts_its_viewer_in_the_page(browser, temporary, tmp_path):
    reporting = reporting_of(ServeSettings())
    (tmp_path / "scan.nii.gz").write_bytes(nifti(scan((8, 60, 60)), folder=tmp_path))
    with serving(temporary, reporting=reporting) as served:
        browser.get(served.url)
        browser.get_log("browser")
        _send(browser, tmp_path / "scan.nii.gz")
        wait_until(lambda: "done in" in _message(browser), seconds=120)
        browser.switch_to.frame("shown")
        wait_until(lambda: browser.find_elements("css selector", "#viewer[data-state=ready]"), seconds=120)
        assert "scan.nii.gz segmented by net 1" in browser.find_element("tag name", "h1").text
        browser.switch_to.default_content()
        assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []
        answer = served.post(nifti(scan((8, 60, 60)), folder=tmp_path), params={"response": "report"})
        assert answer.json()["volumes_ml"]["tumour"] == pytest.approx(5 * 2 * 4 * 3 * 0.8 * 0.7 / 1000, abs=1e-3)


def test_what_the_links_hold(browser, served, tmp_path):
    """Under a policy that lets the page fetch nothing but the service, links are read by the driver's own script."""
    browser.get(served.url)
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.get(served.url)
    (tmp_path / "scan.nii.gz").write_bytes(nifti(scan(), folder=tmp_path))
    _send(browser, tmp_path / "scan.nii.gz")
    wait_until(lambda: "done in" in _message(browser))
    content = {id: base64.b64decode(browser.execute_async_script(_FETCH, id)) for id in ("segmentation", "report")}
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    assert json.loads(content["report"])["counts"] == [1920 - 126, 118, 8]
    label_map = nib.Nifti1Image.from_bytes(gzip.decompress(content["segmentation"]))
    assert np.bincount(np.asarray(label_map.dataobj).ravel()).tolist() == [1920 - 126, 118, 8]


def test_what_is_wrong_is_said(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no scan at all")
    _send(page, tmp_path / "notes.txt")
    wait_until(lambda: "another kind" in _message(page))
    assert "error" in page.find_element("id", "message").get_attribute("class")
    assert not page.find_element("id", "results").is_displayed()
    assert page.find_element("id", "send").is_enabled()
    (complaint,) = page.get_log("browser")  # the browser notes each failed request
    assert "415" in complaint["message"]


def test_cancelling_frees_the_network(page, served, tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(nifti(scan(), folder=tmp_path))
    served.network.may_go_on.clear()
    served.network.at_work.clear()
    _send(page, tmp_path / "scan.nii.gz")
    wait_until(served.network.at_work.is_set)
    assert not page.find_element("id", "send").is_enabled()
    page.find_element("id", "stop").click()
    assert _message(page) == "Cancelled."
    wait_until(lambda: served.service.jobs.num_in_house == 0)
    assert page.find_element("id", "send").is_enabled()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
