"""What the service loads is what predict loads: the same settings, the same post-processing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kits_ml.config import ServeSettings
from kits_ml.errors import InputError
from kits_ml.serving import server
from kits_ml.workflows import segmenters


@pytest.fixture
def network(monkeypatch):
    """A stand-in for what `predict` would load: one voxel of kidney in each slice, whatever the scan."""

    def segment(image, *, spacing_mm, progress=None, observe=None):
        label_map = np.zeros(image.shape, np.uint8)
        label_map[:, 1, 1] = 1
        return label_map

    found = SimpleNamespace(segment=segment, description={"training": {"num_cases": 5}})
    monkeypatch.setattr(segmenters.addresses, "local_folder", Path)
    monkeypatch.setattr(segmenters, "load_network", lambda folders, settings: found)
    return found


def test_a_model_comes_with_its_version_and_what_is_known_of_its_training(network):
    model = server._load("models:/net/3", ServeSettings())
    assert (model.version, model.training) == ("net/3", {"num_cases": 5})
    (source,) = model.segmenter.provenance(scan="a").models
    assert (source.address, source.version) == ("models:/net/3", "3")
    image = np.zeros((2, 3, 3), np.int16)
    assert model.segmenter.segment(image, spacing_mm=(1.0, 1.0, 1.0)).sum() == 2


def test_post_processing_that_is_asked_for_is_done(network):
    settings = ServeSettings(postprocessing="given", minimum_kidney_ml=1.0)
    segmenter = server._load("models:/net/3", settings).segmenter
    image = np.zeros((2, 3, 3), np.int16)
    assert segmenter.segment(image, spacing_mm=(1.0, 1.0, 1.0)).sum() == 0  # 0.002 ml
    assert segmenter.segment(image, spacing_mm=(10.0, 10.0, 10.0)).sum() == 2  # 2 ml


def test_limits_of_the_report_are_settings():
    """Two kidneys of 5 x 5 x 5 voxels of 8 mm: 64 ml each."""
    image, label_map = np.full((12, 20, 40), 150, np.int16), np.zeros((12, 20, 40), np.uint8)
    label_map[3:8, 8:13, 5:10] = label_map[3:8, 8:13, 30:35] = 1

    def flags(**limits):
        reporting = server.reporting_of(ServeSettings(**limits))
        meter = reporting.meter(image.shape)
        report = reporting.assess(image, label_map, spacing_mm=(8.0, 8.0, 8.0), uncertainty=meter)
        return [flag.name for flag in report.flags]

    assert flags() == []
    assert flags(lowest_kidney_ml=70.0) == ["implausible_kidney_volume"] * 2


def test_a_model_that_is_not_there_is_told_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        server.serve(ServeSettings(model="nowhere"))
    with pytest.raises(InputError, match=r"no kits_ml model; expected model\.keras and model\.json"):
        server.serve(ServeSettings(model=str(tmp_path)))
