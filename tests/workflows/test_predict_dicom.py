"""predict takes a folder of DICOM slices and writes on its grid; a stand-in for the network finds what is bright."""

import logging

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from kits_ml.config import PredictSettings
from kits_ml.data import images, volumes
from kits_ml.errors import InputError
from kits_ml.workflows import predict as workflow
from kits_ml.workflows import segmenters


class _Bright:
    description = {}  # noqa: RUF012

    @classmethod
    def load(cls, folder, **options):
        return cls()

    def segment(self, array, **options):
        return (array > 0).astype(np.uint8)


@pytest.fixture
def series(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenters, "Predictor", _Bright)
    monkeypatch.setattr(segmenters.addresses, "local_folder", lambda model: tmp_path)
    monkeypatch.setattr(segmenters.runtime, "configure", lambda num_threads: None)
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    (tmp_path / "ct").mkdir()
    x, y, z = ds.ImagePositionPatient
    for index in range(3):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"
        ds.ImagePositionPatient = [x, y, z + 5 * index]
        ds.save_as(tmp_path / "ct" / f"IM{index}")
    return tmp_path / "ct"


def test_the_label_map_lies_on_the_series_grid(series, tmp_path):
    output = tmp_path / "seg.nii.gz"
    predicted = workflow.predict(PredictSettings(image=str(series), output=str(output)))
    image, label_map = images.read_image(series), volumes.read_label_map(output)
    np.testing.assert_array_equal(label_map.array, image.array > 0)
    assert volumes.same_grid(label_map.geometry, image.geometry)
    voxel_ml = 5 * 0.661468 * 0.661468 / 1000
    assert predicted.volumes_ml["kidney"] == pytest.approx((image.array > 0).sum() * voxel_ml)


def test_what_is_left_out_is_said(series, tmp_path, caplog):
    caplog.set_level(logging.INFO, "kits_ml")
    for index in (1, 2):
        (series / f"IM{index}").unlink()
    workflow.predict(PredictSettings(image=str(series), output=str(tmp_path / "seg.nii.gz")))
    assert "a single slice; its thickness of 5 mm is taken for its depth" in caplog.text


def test_a_gap_stops_before_the_network(series, tmp_path):
    (series / "IM1").rename(series / ".IM1")
    ds = pydicom.dcmread(series / "IM2")
    ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], ds.ImagePositionPatient[2] + 5]
    ds.save_as(series / "IM3")
    (series / "IM4").write_bytes(b"")
    with pytest.raises(InputError, match="IM4: not a DICOM file"):
        workflow.predict(PredictSettings(image=str(series), output=str(tmp_path / "seg.nii.gz")))
    (series / "IM4").unlink()
    with pytest.raises(InputError, match="1 slice is missing"):
        workflow.predict(PredictSettings(image=str(series), output=str(tmp_path / "seg.nii.gz")))
    assert not (tmp_path / "seg.nii.gz").exists()
