"""Small synthetic cases and models that several tests use."""

import json
import os
import shutil
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch  # noqa: F401 (before TensorFlow: the other order is known to crash in places)

from kits_ml import runtime
from kits_ml.data import phantom, volumes

runtime.set_environment()  # before any test imports keras
os.environ.setdefault("MPLBACKEND", "Agg")

# a busy machine is no failure
hypothesis.settings.register_profile("kits_ml", deadline=None)
hypothesis.settings.load_profile("kits_ml")


@pytest.fixture(scope="session", autouse=True)
def _the_same_numbers_on_every_processor():
    """`precision` auto is float32 in this process: what one test chooses, TensorFlow keeps for those after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "has_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT data; skips the test where there is none."""
    folder = os.environ.get("KITS_ML_REAL_DATA")
    if not folder:
        pytest.skip("KITS_ML_REAL_DATA names no folder of real data")
    return Path(folder)


def body(*, num_slices: int = 6, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A body of soft tissue in air with a bright kidney and a tumour in it: image in HU and label map."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    image = np.full((num_slices, size, size), -1000, np.int16)
    image[:, np.hypot(rows / 0.8, columns) < 0.45] = 40
    label_map = np.zeros(image.shape, np.uint8)
    centre = 0.2 + 0.02 * rng.random()
    label_map[1:-1, np.hypot(rows, columns - centre) < 0.12] = 1
    label_map[2:-2, np.hypot(rows, columns - centre) < 0.05] = 2
    image[label_map == 1] = 180
    image[label_map == 2] = 90
    image += rng.normal(0, 5, image.shape).astype(np.int16)
    return image, label_map


@pytest.fixture
def make_case():
    """Writes a small case in the KiTS layout: `make_case(folder, "case_00000", seed=1)`."""

    def make(folder: Path, name: str, **options) -> Path:
        image, label_map = body(**options)
        geometry = volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8))
        volumes.write_image(folder / name / "imaging.nii.gz", image, geometry)
        volumes.write_label_map(folder / name / "segmentation.nii.gz", label_map, geometry)
        return folder / name

    return make


def copy_project(folder: Path) -> Path:
    """Copies what `mlflow run` needs into a folder, so that runs leave nothing in the checkout."""
    root = Path(__file__).parents[1]
    for name in ("MLproject", "conda.yaml", "requirements.txt"):
        shutil.copy(root / name, folder)
    shutil.copytree(root / "kits_ml", folder / "kits_ml", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def project_environment(**changes: str) -> dict[str, str]:
    """This process's environment for commands of a copied project: its own MLflow store and its own package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHONPATH"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONWARNINGS": "ignore", **changes}


def write_phantoms(folder: Path, number: int, *, num_slices: int, size: int) -> None:
    """Writes small phantom cases in the KiTS layout: `case_00000`, ..."""
    for index in range(number):
        case = phantom.generate_case(
            seed=3, index=index, distribution="small", num_slices=num_slices, shape=(size, size)
        )
        geometry = volumes.kits_geometry(case.image.shape, case.spacing_mm)
        volumes.write_image(folder / f"case_{index:05d}/imaging.nii.gz", case.image, geometry)
        volumes.write_label_map(folder / f"case_{index:05d}/segmentation.nii.gz", case.label_map, geometry)


def lopsided(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, noise_hu: float = 5
) -> tuple[np.ndarray, np.ndarray]:
    """A body off the middle, its kidney off the body's, on a table as wide as the scan: image in HU and label map."""
    _, num_rows, num_columns = shape
    rows = (np.arange(num_rows)[:, None] + 0.5) * spacing_mm[1] / 105  # shares of 105 x 130 mm
    columns = (np.arange(num_columns)[None, :] + 0.5) * spacing_mm[2] / 130
    image = np.full(shape, -1000, np.int16)
    image[:, np.hypot((rows - 0.5) / 0.305, (columns - 0.415) / 0.33) < 1] = 40
    image[:, (rows[:, 0] > 0.89) & (rows[:, 0] < 0.92)] = 200
    label_map = np.zeros(shape, np.uint8)
    label_map[1:, np.hypot((rows - 0.55) / 0.13, (columns - 0.28) / 0.11) < 1] = 1
    label_map[1:, np.hypot((rows - 0.5) / 0.05, (columns - 0.25) / 0.04) < 1] = 2
    image[label_map == 1] = 180
    image[label_map == 2] = 90
    image += np.random.default_rng(0).normal(0, noise_hu, shape).astype(np.int16)
    return image, label_map


@pytest.fixture(scope="module")
def open_page(tmp_path_factory):
    """Opens a page in a real browser: `open_page(path, width)`; WebGL is rendered in software."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on this machine: pages are not looked at in a browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("headless", "no-sandbox", "no-first-run", "disable-background-networking", "disable-dev-shm-usage"),
        *("use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader"),
    ):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(300)  # WebGL in software, on a busy machine

    def load(path, width: int):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(path.as_uri())
        return browser

    yield load
    browser.quit()


def requests_of(browser) -> list[str]:
    """Addresses that the open page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
