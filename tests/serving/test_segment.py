"""A scan goes in, the segmentation, the report or the page comes out; nothing stays."""

import io
import json
import zipfile

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from pydicom.data import get_testdata_file

from kits_ml.data import volumes
from tests.serving.conftest import nifti, scan, zipped


def _labels(body: bytes, folder) -> volumes.Volume:
    (folder / "seg.nii.gz").write_bytes(body)
    return volumes.read_label_map(folder / "seg.nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_the_segmentation_lies_on_the_scans_grid(served, tmp_path, suffix):
    body = nifti(scan(), suffix=suffix, folder=tmp_path)
    answer = served.post(body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Model-Version"] == "net/1"
    assert 'filename="segmentation.nii.gz"' in answer.headers["Content-Disposition"]
    parts = [one.partition(";dur=") for one in answer.headers["Server-Timing"].split(", ")]
    assert [name for name, _, _ in parts] == ["wait", "read", "segment", "pack"]
    assert all(float(milliseconds) >= 0 for _, _, milliseconds in parts)
    found = _labels(answer.content, tmp_path)
    np.testing.assert_array_equal(found.array, (scan() > 100).astype(int) + (scan() > 200))
    (tmp_path / f"scan{suffix}").write_bytes(body)
    assert volumes.same_grid(found.geometry, volumes.read_geometry(tmp_path / f"scan{suffix}"))


@pytest.mark.parametrize(
    ("how", "media_type"),
    [
        ({"params": {"response": "report"}}, "application/json"),
        ({"headers": {"Accept": "application/json"}}, "application/json"),
        ({"params": {"response": "page"}}, "text/html; charset=utf-8"),
        ({"headers": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}}, "text/html; charset=utf-8"),
        ({"headers": {"Accept": "*/*"}}, "application/gzip"),
        ({"headers": {"Accept": "application/*;q=0.2, application/octet-stream"}}, "application/gzip"),
        ({"params": {"response": "segmentation"}, "headers": {"Accept": "application/json"}}, "application/gzip"),
    ],
)
def test_the_client_chooses(served, tmp_path, how, media_type):
    answer = served.post(nifti(scan(), folder=tmp_path), **how)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == media_type
    # kidney 2 x 7 x 9 less the tumour of 1 x 2 x 4
    counts = [4 * 20 * 24 - 126, 126 - 8, 8]
    if media_type == "application/json":
        report = answer.json()
        assert report["counts"] == counts
        assert report["spacing_mm"] == pytest.approx([3, 0.8, 0.7])
        assert report["training"] == {"num_cases": 3}
    elif "html" in media_type:
        assert str(counts) in answer.text
        assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "scan_name"), [(None, ""), ("abdomen 1.nii.gz", "abdomen 1.nii.gz"), ("C:\\a\\b/\tc.nii", "c.nii")]
)
def test_the_report_says_what_it_is_of(served, tmp_path, name, scan_name):
    answer = served.post(nifti(scan(), folder=tmp_path), params={"response": "report", "name": name})
    provenance = answer.json()["provenance"]
    assert (provenance["scan"], provenance["models"][0]["version"]) == (scan_name, "1")


def test_a_name_that_is_none(served, tmp_path):
    answer = served.post(nifti(scan(), folder=tmp_path), params={"name": 256 * "a"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("name: ")


def test_all_of_it_comes_in_one_zip(served, tmp_path):
    answer = served.post(nifti(scan(), folder=tmp_path), params={"response": "all"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["segmentation.nii.gz", "report.json", "report.html"]
        assert _labels(archive.read("segmentation.nii.gz"), tmp_path).array.max() == 2
        assert json.loads(archive.read("report.json"))["counts"][2] == 8


def series(num_slices: int = 3, **changes) -> dict[str, bytes]:
    """A CT series of 128 x 128, a file a slice; `changes` are what its headers have else."""
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    ds.update(changes)
    x, y, z = ds.ImagePositionPatient
    files = {}
    for index in range(num_slices):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"
        ds.ImagePositionPatient = [x, y, z + 5 * index]
        stream = io.BytesIO()
        ds.save_as(stream)
        files[f"study/IM{index}"] = stream.getvalue()
    return files


def test_a_zip_of_dicom_slices(served, tmp_path):
    answer = served.post(zipped({**series(), "__MACOSX/._IM0": b"x", "study/": b"", ".DS_Store": b"x"}))
    assert answer.status_code == 200, answer.text
    found = _labels(answer.content, tmp_path)
    assert found.array.shape == (3, 128, 128)
    np.testing.assert_allclose(found.spacing_mm, (5, 0.661468, 0.661468), rtol=1e-5)
    assert nib.load(tmp_path / "seg.nii.gz").shape == (128, 128, 3)  # as predict writes a series


def test_a_zip_of_dicom_slices_is_answered_with_dicom_seg(served):
    body = zipped(series())
    answer = served.post(body, params={"response": "dicom_seg"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/dicom"
    found = highdicom.seg.segread(io.BytesIO(answer.content))
    assert [one.SegmentLabel for one in found.SegmentSequence] == ["kidney", "tumour"]
    algorithm = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kits_ml net", "1")
    referenced = {
        one.ReferencedSOPInstanceUID for one in found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}
    with zipfile.ZipFile(io.BytesIO(served.post(body, params={"response": "all"}).content)) as archive:
        assert archive.namelist() == ["segmentation.nii.gz", "segmentation.dcm", "report.json", "report.html"]
        assert "DICOM SEG" not in json.loads(archive.read("report.json"))["provenance"]["note"]


def test_dicom_seg_needs_slices_that_it_can_refer_to(served, tmp_path):
    answer = served.post(nifti(scan(), folder=tmp_path), params={"response": "dicom_seg"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("a NIfTI file, expected a zip of DICOM slices")
    body = zipped(series(FrameOfReferenceUID=None))
    begun = served.network.num_begun
    answer = served.post(body, params={"response": "dicom_seg"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("upload/study/IM0: no FrameOfReferenceUID")
    assert served.network.num_begun == begun  # nothing was segmented in vain
    with zipfile.ZipFile(io.BytesIO(served.post(body, params={"response": "all"}).content)) as archive:
        assert "segmentation.dcm" not in archive.namelist()
        note = json.loads(archive.read("report.json"))["provenance"]["note"]
    assert "no DICOM SEG: upload/study/IM0: no FrameOfReferenceUID" in note


def test_a_series_with_a_gap_names_the_files_as_sent(served):
    files = series(4)
    del files["study/IM2"]
    answer = served.post(zipped(files))
    assert answer.status_code == 422
    assert "upload: 1 slice is missing" in answer.json()["detail"]
    answer = served.post(zipped({**series(), "study/IM7": b"no slice"}))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("upload/study/IM7: not a")
    assert "/tmp" not in answer.text


def test_it_tells_of_itself(served):
    assert requests.get(f"{served.url}health", timeout=5).json() == {"status": "ok"}
    assert requests.get(f"{served.url}ready", timeout=5).json() == {"status": "ready", "model": "net/1"}
    schema = requests.get(f"{served.url}openapi.json", timeout=5).json()
    assert set(schema["paths"]) == {"/", "/v1/segment", "/health", "/ready", "/metrics"}
    page = requests.get(served.url, timeout=5)
    assert "Segment a CT scan" in page.text


def test_the_counters_count(served, tmp_path):
    def count(line: str) -> float:
        text = requests.get(f"{served.url}metrics", timeout=5).text
        return sum(float(one.split()[-1]) for one in text.splitlines() if one.startswith(line))

    refused, done = (f'kits_ml_requests_total{{route="/v1/segment",status="{status}"}}' for status in (415, 200))
    before = [count(line) for line in (refused, done, 'kits_ml_stage_seconds_count{stage="segment"}')]
    served.post(b"no scan at all")
    served.post(nifti(scan(), folder=tmp_path))
    after = [count(line) for line in (refused, done, 'kits_ml_stage_seconds_count{stage="segment"}')]
    assert np.subtract(after, before).tolist() == [1, 1, 1]
    assert count("process_resident_memory_bytes") > 1e7
    assert count("kits_ml_requests_in_house") == 0
    assert count("kits_ml_ready") == 1
