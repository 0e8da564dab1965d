"""A folder of scans: all that can be segmented is, once, and what is there is not lost; the network is a function."""

import csv
import errno
import json

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.data import get_testdata_file

from kits_ml import cli
from kits_ml.config import PredictSettings
from kits_ml.data import volumes
from kits_ml.data.scans import name_of
from kits_ml.errors import InputError
from kits_ml.workflows import predict as predicting
from kits_ml.workflows import predict_folder as workflow
from kits_ml.workflows.predict import predict
from kits_ml.workflows.predict_folder import is_folder, predict_folder
from tests.conftest import body


def _write_scan(path, seed: int = 0) -> None:
    image, _ = body(num_slices=4, size=40, seed=seed)
    volumes.write_image(path, image, volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8)))


@pytest.fixture
def scans(tmp_path):
    """One scan of each kind, by name: dicom, kits, loose."""
    folder = tmp_path / "scans"
    _write_scan(folder / "loose.nii.gz")
    _write_scan(folder / "kits" / "imaging.nii.gz", seed=1)
    (folder / "dicom" / "series").mkdir(parents=True)
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    x, y, z = ds.ImagePositionPatient
    for index in range(2):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"
        ds.ImagePositionPatient = [x, y, z + 5 * index]
        ds.save_as(folder / "dicom" / "series" / f"IM{index}")
    (folder / "notes").mkdir()
    (folder / "notes" / "read.txt").write_text("nothing")
    (folder / "list.csv").write_text("a,b")
    (folder / ".hidden.nii.gz").write_text("nothing")
    return folder


def _table(folder) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def _settings(scans, model, **options) -> PredictSettings:
    output = str(scans.parent / "out")
    return PredictSettings(image=str(scans), output=output, model=model, **options)


def test_scans_of_all_kinds(scans, fake_model):
    predicted = predict_folder(_settings(scans, fake_model(), overlay="o.png", probabilities="p.nii.gz"))
    out = predicted.output
    assert (predicted.num_kept, dict(predicted.failures)) == (0, {})
    names = ["dicom", "kits", "loose"]
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    assert sorted(path.name for path in (out / "o").iterdir()) == [f"{name}.png" for name in names]
    assert sorted(path.name for path in (out / "p").iterdir()) == [f"{name}.nii.gz" for name in names]
    for name, path in (("loose", scans / "loose.nii.gz"), ("kits", scans / "kits/imaging.nii.gz")):
        label_map = volumes.read_label_map(out / f"{name}.nii.gz")
        assert volumes.same_grid(label_map.geometry, volumes.read_geometry(path))
        row = _table(out)[name]
        assert float(row["kidney_ml"]) == pytest.approx(volumes.volume_ml(label_map, 1, 2), abs=1e-3)
        assert float(row["kidney_ml"]) > 0
    assert not list(out.rglob("*.partial"))


def test_reports_pages_and_dicom_segs(scans, fake_model):
    """What each holds is tested elsewhere; here, that each scan gets what it can have, about itself."""
    wanted = {"report": "report.json", "page": "page.html", "dicom_seg": "seg.dcm"}
    predicted = predict_folder(_settings(scans, fake_model(), **wanted))
    assert not predicted.failures
    out = predicted.output
    for name, row in predicted.rows.items():
        report = json.loads((out / "report" / f"{name}.json").read_text())
        assert report["volumes_ml"]["kidney"] == pytest.approx(row["kidney_ml"], abs=1e-3)
        assert "doubt" in report
        assert row["flags"].split() == [flag["name"] for flag in report["flags"]]
        page = (out / "page" / f"{name}.html").read_text(encoding="utf-8")
        assert page.startswith("<!")
        scan = {"dicom": "dicom", "kits": "kits/imaging.nii.gz", "loose": "loose.nii.gz"}[name]
        assert (report["provenance"]["scan"], f"<h1>{scan} segmented by model sha256 " in page) == (scan, True)
    assert [path.name for path in (out / "seg").iterdir()] == ["dicom.dcm"]
    seg = pydicom.dcmread(out / "seg" / "dicom.dcm")
    source = pydicom.dcmread(scans / "dicom" / "series" / "IM0")
    assert (seg.Modality, seg.StudyInstanceUID) == ("SEG", source.StudyInstanceUID)
    assert predict_folder(_settings(scans, fake_model(), **wanted)).num_kept == 3


def test_a_nifti_scan_has_no_dicom_seg(scans, fake_model):
    settings = {"image": str(scans / "loose.nii.gz"), "output": str(scans.parent / "a.nii"), "model": fake_model()}
    with pytest.raises(InputError, match=r"dicom_seg: found .*loose\.nii\.gz, expected a folder of DICOM slices"):
        predict(PredictSettings(**settings, dicom_seg="a.dcm"))
    assert not (scans.parent / "a.nii").exists()


def test_what_is_done_is_not_done_again(scans, fake_model):
    model = fake_model()
    predict_folder(_settings(scans, model, batch_size=2))
    first = {path: path.stat().st_mtime_ns for path in (scans.parent / "out").glob("*.nii.gz")}
    table = _table(scans.parent / "out")
    _write_scan(scans / "new.nii.gz", seed=3)
    again = predict_folder(_settings(scans, model, batch_size=3))
    assert again.num_kept == 3
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert {name: row for name, row in _table(scans.parent / "out").items() if name != "new"} == table
    (scans.parent / "out" / "loose.nii.gz").unlink()
    assert predict_folder(_settings(scans, model)).num_kept == 3
    assert (scans.parent / "out" / "loose.nii.gz").exists()


@pytest.mark.parametrize("changed", ["model", "settings", "scan", "output"])
def test_what_is_of_something_else_is_left_alone(scans, fake_model, changed):
    model = fake_model()
    done = predict_folder(_settings(scans, model)).output / "loose.nii.gz"
    options = {}
    if changed == "model":
        fake_model(content="other weights")
    elif changed == "settings":
        options = {"postprocessing": "given", "keep_largest_kidneys": 1}
    elif changed == "scan":
        _write_scan(scans / "loose.nii.gz", seed=5)
    else:
        done.write_bytes(b"mine")
        (done.parent / ".predictions" / "loose.json").unlink()
    before = done.read_bytes()
    predicted = predict_folder(_settings(scans, model, **options))
    assert "loose.nii.gz: exists, and is not of this scan" in predicted.failures["loose"]
    assert done.read_bytes() == before
    assert predicted.num_kept == (2 if changed in ("scan", "output") else 0)
    assert not predict_folder(_settings(scans, model, **options, overwrite=True)).failures
    assert predict_folder(_settings(scans, model, **options)).num_kept == 3


def test_one_bad_scan_does_not_stop_the_rest(scans, fake_model):
    whole = (scans / "loose.nii.gz").read_bytes()
    (scans / "damaged.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "case_00007").mkdir()
    _write_scan(scans / "air.nii.gz")
    volumes.write_image(scans / "air.nii.gz", np.full((3, 9, 9), -1000), volumes.kits_geometry((3, 9, 9), (1, 1, 1)))
    arguments = ["predict", "--image", str(scans), "--output", str(scans.parent / "out"), "--model", fake_model()]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1
    assert "3 scans segmented, 0 were there, 3 failed" in result.output
    assert "3 of 6 cases failed:" in result.output
    for said in ("air.nii.gz: no foreground", "damaged.nii.gz: truncated", "case_00007/imaging.nii.gz: no such file"):
        assert said in result.output, said
    assert "Traceback" not in result.output
    written = {path.name for path in (scans.parent / "out").glob("*.nii.gz")}
    assert written == {"dicom.nii.gz", "kits.nii.gz", "loose.nii.gz"}
    assert "truncated" in _table(scans.parent / "out")["damaged"]["message"]
    # mended, it is done with the next call, and only it
    (scans / "damaged.nii.gz").write_bytes(whole)
    assert predict_folder(_settings(scans, fake_model())).num_kept == 3


def test_a_series_that_allows_no_dicom_seg_keeps_its_label_map(scans, fake_model):
    for path in (scans / "dicom" / "series").iterdir():
        ds = pydicom.dcmread(path)
        del ds.FrameOfReferenceUID
        ds.save_as(path)
    output = scans.parent / "out"
    arguments = ["predict", "--image", str(scans), "--output", str(output), "--model", fake_model()]
    arguments += ["--dicom_seg", "seg.dcm"]
    for said in ("3 scans segmented, 0 were there, 0 failed", "0 scans segmented, 3 were there, 0 failed"):
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 1
        assert said in result.output
        assert "1 of 3 cases failed:\n  dicom: all but the DICOM SEG is there: " in result.output
        assert "IM0: no FrameOfReferenceUID" in result.output
    assert (output / "dicom.nii.gz").exists()
    assert not (output / "seg").exists()
    assert float(_table(output)["dicom"]["kidney_ml"]) > 0


def test_limits_of_the_report_are_options_of_the_command(scans, fake_model):
    """The model finds less than a millilitre of kidney, which is a fragment unless the limits say otherwise."""
    out = scans.parent / "out"
    arguments = ["predict", "--image", str(scans / "loose.nii.gz"), "--model", fake_model(), "--overwrite", "true"]
    arguments += ["--output", str(out / "a.nii"), "--report", str(out / "a.json")]

    def kidneys(*limits: str) -> tuple[list[dict], list[str]]:
        result = CliRunner().invoke(cli.main, [*arguments, *limits])
        assert result.exit_code == 0, result.output
        report = json.loads((out / "a.json").read_text())
        return report["kidneys"], [flag["name"] for flag in report["flags"]]

    found, flags = kidneys()
    assert (found, "no_kidney" in flags) == ([], True)
    found, flags = kidneys("--fragment_kidney_ml", "0.01", "--lowest_kidney_ml", "0.01")
    assert found
    assert "no_kidney" not in flags
    assert json.loads((out / "a.json").read_text())["limits"]["lowest_kidney_ml"] == 0.01
    result = CliRunner().invoke(cli.main, [*arguments, "--lowest_kidney_ml", "10"])
    assert "lowest_kidney_ml: found 10, expected at least fragment_kidney_ml 15" in result.output


@pytest.mark.parametrize("report", ["r.json", None])
def test_other_limits_make_another_report_but_no_other_label_map(scans, fake_model, report):
    model = fake_model()
    predict_folder(_settings(scans, model, report=report))
    again = predict_folder(_settings(scans, model, report=report, highest_tumour_ml=1000.0))
    assert (again.num_kept, len(again.failures)) == ((0, 3) if report else (3, 0))


@pytest.fixture
def loose_fails(monkeypatch):
    """Makes the scan `loose` fail where it has been segmented and the first output written."""
    write_verified = predicting.write_verified

    def fail_with(error: BaseException | None) -> None:
        def write(path, *content):
            write_verified(path, *content)
            if error is not None and "loose" in path.name:
                raise error

        monkeypatch.setattr(predicting, "write_verified", write)

    return fail_with


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError("Unable to allocate 9 GiB"),
            "out of memory (Unable to allocate 9 GiB); expected a smaller scan",
        ),
        (PermissionError(13, "Permission denied", "a"), "[Errno 13] Permission denied: 'a'"),
        (TypeError("a fault\nat length"), "TypeError: a fault"),
    ],
)
def test_whatever_ends_one_scan_does_not_stop_the_rest(scans, fake_model, loose_fails, error, message, caplog):
    _write_scan(scans / "very_last.nii.gz")
    loose_fails(error)
    predicted = predict_folder(_settings(scans, fake_model()))
    assert list(predicted.failures) == ["loose"]
    assert predicted.failures["loose"].startswith(message)
    assert "\n" not in predicted.failures["loose"]
    assert ("test_predict_folder.py" in caplog.text) == isinstance(error, TypeError)  # the traceback
    done = {path.name for path in predicted.output.glob("*.nii.gz")}
    assert done == {"dicom.nii.gz", "kits.nii.gz", "very_last.nii.gz"}
    assert {path.name for path in (predicted.output / ".predictions").iterdir()} == {
        f"{name}.json" for name in ("dicom", "kits", "very_last")
    }


def test_a_scan_that_fails_leaves_what_was_there(scans, fake_model, loose_fails):
    """What another model made stays, with the record by which it is known to be finished."""
    model = fake_model()
    predict_folder(_settings(scans, model, report="r.json"))
    out = scans.parent / "out"
    before = {path: path.read_bytes() for path in out.rglob("*loose*")}
    assert len(before) == 3  # label map, report, record
    fake_model(content="other weights")
    loose_fails(TypeError("a fault"))
    options = {"report": "r.json", "page": "p.html", "overwrite": True}
    assert list(predict_folder(_settings(scans, model, **options)).failures) == ["loose"]
    assert {path: path.read_bytes() for path in out.rglob("*loose*")} == before
    fake_model(content="")
    loose_fails(None)
    assert "message" not in predict_folder(_settings(scans, model, report="r.json")).rows["loose"]
    assert {path: path.read_bytes() for path in before} == before  # it was not done again


def test_a_full_disk_stops_all(scans, fake_model, loose_fails):
    _write_scan(scans / "very_last.nii.gz")
    loose_fails(OSError(errno.ENOSPC, "No space left on device"))
    arguments = ["predict", "--image", str(scans), "--output", str(scans.parent / "out"), "--model", fake_model()]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1
    assert result.output.strip().endswith(f"{scans.parent / 'out'}: No space left on device")
    assert list(_table(scans.parent / "out")) == ["dicom", "kits"]
    assert not list((scans.parent / "out").glob("very_last*"))


def test_a_killed_run_goes_on(scans, fake_model, monkeypatch):
    """Killed after the label map of the second scan, before it was noted as done."""
    finish = workflow.ScanJob.finish

    def killed(job, row):
        if job.scan.name == "kits":
            raise KeyboardInterrupt
        finish(job, row)

    monkeypatch.setattr(workflow.ScanJob, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(_settings(scans, fake_model()))
    assert list(_table(scans.parent / "out")) == ["dicom"]
    assert (scans.parent / "out" / "kits.nii.gz").exists()
    monkeypatch.setattr(workflow.ScanJob, "finish", finish)
    predicted = predict_folder(_settings(scans, fake_model()))
    assert (predicted.num_kept, dict(predicted.failures)) == (1, {})


def test_outputs_may_lie_among_the_scans(scans, fake_model):
    settings = PredictSettings(image=str(scans), output=str(scans / "out"), model=fake_model())
    assert len(predict_folder(settings).rows) == 3
    assert predict_folder(settings).num_kept == 3


def test_two_of_one_name_are_refused(scans, fake_model):
    _write_scan(scans / "kits.nii.gz")
    with pytest.raises(InputError, match=r"found kits/imaging\.nii\.gz and kits\.nii\.gz; expected one kits"):
        predict_folder(_settings(scans, fake_model()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlay": "sub/o.png"}, "overlay: found sub/o.png, expected a plain name"),
        ({"overlay": "o.jpg"}, "o.jpg: expected a name for overlay that ends in .png"),
        ({"overlay": "o.png", "probabilities": "o.nii.gz"}, "expected names that differ before the first dot"),
    ],
)
def test_names_of_outputs(scans, fake_model, options, message):
    with pytest.raises(InputError, match=message):
        predict_folder(_settings(scans, fake_model(), **options))


def test_a_folder_of_nothing(tmp_path, fake_model):
    (tmp_path / "scans" / "notes").mkdir(parents=True)
    with pytest.raises(
        InputError, match="no scans; expected NIfTI files, folders of DICOM slices or folders such as"
    ):
        predict_folder(_settings(tmp_path / "scans", fake_model()))


def test_what_is_a_folder_of_scans(tmp_path):
    (tmp_path / "ct").mkdir()
    assert is_folder(PredictSettings(image=str(tmp_path / "ct"), output="out"))
    assert not is_folder(PredictSettings(image=str(tmp_path / "ct"), output="out.nii.gz"))
    assert not is_folder(PredictSettings(image=str(tmp_path / "ct.nii.gz"), output="out"))


def test_what_reports_call_a_scan(scans, monkeypatch):
    assert name_of(scans / "loose.nii.gz") == "loose.nii.gz"
    assert name_of(scans / "kits" / "imaging.nii.gz") == "kits/imaging.nii.gz"
    monkeypatch.chdir(scans / "dicom" / "series")
    assert (name_of("."), name_of("..")) == ("series", "dicom")
