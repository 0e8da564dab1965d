import dataclasses

import numpy as np
import pytest

from kits_ml.data import volumes
from kits_ml.data.findings import Finding
from kits_ml.data.fingerprint import fingerprint
from kits_ml.data_figures import DRAWN_HU, overview
from kits_ml.figures import save_figure


@pytest.fixture
def one():
    image = np.linspace(-1000, 400, 4 * 8 * 8).reshape(4, 8, 8).astype(np.int16)
    label_map = np.ones(image.shape, np.uint8)
    label_map[0] = 2
    geometry = volumes.kits_geometry(image.shape, (5.0, 0.8, 0.8))
    return fingerprint(
        "a",
        volumes.Volume(array=image, geometry=geometry, path="made up"),
        volumes.Volume(array=label_map, geometry=geometry, path="made up"),
    )


def test_a_page_for_one_case(one, tmp_path):
    figure = overview([one], [], title="mine")
    save_figure(tmp_path / "page.png", figure)
    assert figure.get_suptitle() == "mine, 1 case"
    assert "nothing to remark" in [text.get_text() for text in figure.axes[5].texts]


def test_selected_and_left_out_are_told_apart(one):
    cases = [
        dataclasses.replace(one, case=name, slices=slices) for name, slices in (("a", 50), ("b", 60), ("c", 700))
    ]
    findings = [Finding(case="c", level="warning", rule="hu_high", message="")]
    figure = overview(cases, findings, left_out={"c"})
    assert figure.get_suptitle() == "3 cases: 2 selected (blue), 1 left out (grey)"
    heights = sum(bar.get_height() for container in figure.axes[0].containers for bar in container)
    assert heights == 3
    assert figure.axes[5].get_yticklabels()[0].get_text() == "hu high"


def test_extremes_do_not_flatten_the_rest(one, tmp_path):
    extreme = dataclasses.replace(one, hu=dataclasses.replace(one.hu, min=-10240.0, max=18558.0))
    figure = overview([one, extreme], [])
    save_figure(tmp_path / "page.png", figure)
    low, high = figure.axes[2].get_ylim()
    assert DRAWN_HU[0] * 1.2 < low < high < DRAWN_HU[1] * 1.2
    assert {line.get_marker() for line in figure.axes[2].lines} >= {"^", "v"}


def test_cases_without_labels(one, tmp_path):
    bare = dataclasses.replace(one, has_labels=False, kidney_ml=0.0, tumour_ml=0.0, kidney_hu=None, tumour_hu=None)
    figure = overview([bare], [])
    save_figure(tmp_path / "page.png", figure)
    assert "nothing is labelled" in [text.get_text() for text in figure.axes[3].texts]
