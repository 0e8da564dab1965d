"""predict takes a folder of DICOM slices and writes on its grid; a stand-in for the network finds what is bright."""

import hashlib
import json
import logging

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

import kits_ml
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
    monkeypatch.setattr(segmenters.addresses, "pinned", lambda model: model.replace("@champion", "/3"))
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


def test_report_page_and_dicom_seg_say_where_they_come_from(series, tmp_path):
    """The alias is gone: tomorrow it may be another version's; no folder is named."""
    names = {"report": "a.json", "page": "a.html", "dicom_seg": "a.dcm"}
    outputs = {name: str(tmp_path / value) for name, value in {**names, "output": "a.nii"}.items()}
    (tmp_path / "model.keras").write_bytes(b"weights")
    pydicom_seg = pydicom.dcmread(series / "IM0")
    pydicom_seg.Modality = "SEG"
    pydicom_seg.save_as(series / "seg.dcm")
    workflow.predict(PredictSettings(image=str(series), **outputs))
    provenance = json.loads((tmp_path / "a.json").read_text())["provenance"]
    digest = hashlib.sha256(b"weights").hexdigest()
    assert provenance["models"] == [
        {"address": "models:/kits-unet/3", "sha256": {"model.keras": digest}, "version": "3"}
    ]
    assert (provenance["scan"], provenance["note"]) == ("ct", "ct: left out 1 SEG")
    assert provenance["kits_ml"] == kits_ml.__version__
    assert (provenance["engine"], provenance["test_time_augmentation"]) == ("keras", "none")
    assert provenance["postprocessing"]["fill_holes"] == "none"
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<h1>ct segmented by kits-unet 3</h1>" in page
    assert digest in page
    algorithm = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kits_ml kits-unet", "3")
    assert not any(str(tmp_path) in text for text in (json.dumps(provenance), page))


def test_what_fails_late_leaves_nothing_and_can_be_done_again(series, tmp_path, monkeypatch):
    names = {"output": "out/a.nii", "report": "out/a.json", "page": "out/a.html", "dicom_seg": "out/a.dcm"}
    settings = PredictSettings(image=str(series), **{name: str(tmp_path / value) for name, value in names.items()})
    write_verified = workflow.write_verified

    def damaged(path, *content):
        write_verified(path, *content)
        raise InputError(f"{path}: read back after writing: other voxels")

    monkeypatch.setattr(workflow, "write_verified", damaged)
    with pytest.raises(InputError, match=r"out/a\.nii: read back"):
        workflow.predict(settings)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(workflow, "write_verified", write_verified)
    workflow.predict(settings)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.nii", "a.json", "a.html", "a.dcm"}


def test_what_is_left_out_is_said(series, tmp_path, caplog):
    caplog.set_level(logging.INFO, "kits_ml")
    for index in (1, 2):
        (series / f"IM{index}").unlink()
    workflow.predict(PredictSettings(image=str(series), output=str(tmp_path / "seg.nii.gz")))
    assert "a single slice; its thickness of 5 mm is taken for its depth" in caplog.text


def test_headers_that_allow_no_dicom_seg_are_told_before_the_model_is_loaded(series, tmp_path, monkeypatch):
    for path in series.iterdir():
        ds = pydicom.dcmread(path)
        del ds.FrameOfReferenceUID
        ds.save_as(path)
    monkeypatch.setattr(workflow, "load_segmenter", lambda *_: pytest.fail("loaded in vain"))
    outputs = {"output": str(tmp_path / "a.nii"), "dicom_seg": str(tmp_path / "a.dcm")}
    with pytest.raises(InputError, match="IM0: no FrameOfReferenceUID"):
        workflow.predict(PredictSettings(image=str(series), **outputs))


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
