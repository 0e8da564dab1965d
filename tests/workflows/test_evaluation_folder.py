"""A new evaluation takes the place of an old one whole: of that nothing stays, and of everything else all does."""

import dataclasses
import shutil
from pathlib import Path

import mlflow
import pytest

from kits_ml import figures
from kits_ml.config import EvaluateSettings
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.evaluation.evidence import read_evidence
from kits_ml.evaluation.tables import read_scores
from kits_ml.workflows import evaluate as evaluation
from kits_ml.workflows.evaluate import evaluate
from kits_ml.workflows.evaluation_folder import put_in_place

FILES = {"scores.csv", "cases.csv", "summary.json", "selftest.csv", "report.html", "dice.png"}
OVERLAYS = {"overlay_worst.png", "overlay_median.png", "overlay_best.png"}


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    """A picture takes a second."""
    for name in ("box_plot_of_scores", "overlay_of_case"):
        monkeypatch.setattr(figures, name, lambda *arguments, **options: None)
    monkeypatch.setattr(figures, "save_figure", lambda path, figure: path.write_bytes(b"a picture"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def by_model(tmp_path, make_case, fake_model, out) -> EvaluateSettings:
    """Three cases and a model."""
    for number in range(3):
        make_case(tmp_path / "data", f"case_{number:05d}", seed=number, size=32)
    return EvaluateSettings(
        model=fake_model(), data=str(tmp_path / "data"), output=str(out), track=False, overwrite=True, num_workers=1
    )


@pytest.fixture
def by_folders(tmp_path, by_model, out) -> EvaluateSettings:
    """The first of the cases, and its reference as its prediction."""
    (tmp_path / "true").mkdir()
    shutil.copy(tmp_path / "data/case_00000/segmentation.nii.gz", tmp_path / "true/case_00000.nii.gz")
    folder = str(tmp_path / "true")
    return EvaluateSettings(
        predictions=folder, references=folder, output=str(out), track=False, overwrite=True, num_workers=1
    )


def _contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_a_models_evaluation_stays(by_model, by_folders, out, monkeypatch):
    evaluate(by_model)
    labels = {f"predictions/case_{number:05d}.nii.gz" for number in range(3)}
    assert set(_contents(out)) == FILES | OVERLAYS | labels | {"evaluation.json"}
    logged = []
    monkeypatch.setattr(mlflow, "log_artifact", lambda path, part: logged.append(Path(path).name))
    monkeypatch.setattr(mlflow, "log_metrics", lambda means: None)
    evaluation.log_evaluation(evaluate(by_folders))
    assert set(_contents(out)) == FILES == set(logged)
    assert [path.is_dir() for path in out.iterdir()] == [False] * len(FILES)
    assert [one.case for one in read_scores(out / "scores.csv")] == ["case_00000"]
    with pytest.raises(InputError, match=r"evaluation\.json: cannot be read"):
        read_evidence(out)  # it would be of the model's three cases


def test_files_of_others_stay(by_model, by_folders, out):
    evaluate(by_model)
    mine = {"notes.txt": b"mine", "predictions/case_00077.nii.gz": b"mine too", "predictions/case_00000.png": b"3"}
    for name, content in mine.items():
        (out / name).write_bytes(content)
    evaluate(by_folders)
    assert set(_contents(out)) == FILES | set(mine)
    assert {name: _contents(out)[name] for name in mine} == mine


def test_fewer_cases_leave_no_label_map_of_the_others(by_model, out, tmp_path):
    evaluate(by_model)
    shutil.rmtree(tmp_path / "data/case_00001")
    evaluate(by_model)
    assert sorted(path.name for path in (out / "predictions").iterdir()) == ["case_00000.nii.gz", "case_00002.nii.gz"]
    assert sorted(read_evidence(out).case_digests) == ["case_00000", "case_00002"]


def test_label_maps_that_are_scored_again_stay(by_model, out):
    evaluate(by_model)
    before = _contents(out / "predictions")
    again = dataclasses.replace(
        by_model, model=None, data=None, predictions=str(out / "predictions"), references=by_model.data
    )
    found = evaluate(again)
    assert not any(case.missing_prediction for case in found.cases)
    assert _contents(out / "predictions") == before
    assert not (out / "evaluation.json").exists()


@pytest.mark.parametrize("fault", ["no such model", "no such folder", "no case can be read", "an error on the way"])
def test_what_was_there_is_untouched_where_the_new_one_fails(by_model, by_folders, out, tmp_path, fault, monkeypatch):
    evaluate(by_model)
    before = _contents(out)
    settings = by_model
    if fault == "no such model":
        settings = dataclasses.replace(by_model, model=str(tmp_path / "nowhere"))
    elif fault == "no such folder":
        settings = dataclasses.replace(by_folders, predictions=str(tmp_path / "nowhere"))
    elif fault == "no case can be read":
        for path in (tmp_path / "data").rglob("segmentation.nii.gz"):
            path.write_bytes(b"no")
    else:
        monkeypatch.setattr(evaluation, "write_evaluation", _full_disk)
    with pytest.raises((InputError, CasesFailedError, OSError)):
        evaluate(settings)
    assert _contents(out) == before
    assert {path.name for path in out.iterdir()} == FILES | OVERLAYS | {"evaluation.json", "predictions"}


def _full_disk(*arguments, **options):
    raise OSError("No space left on device")


def test_a_failure_leaves_no_folder(by_model, out, monkeypatch):
    monkeypatch.setattr(evaluation, "write_evaluation", _full_disk)  # the label maps were written by then
    with pytest.raises(OSError, match="No space left"):
        evaluate(by_model)
    assert not out.exists()


def test_without_overwrite_any_file_of_an_evaluation_is_left_alone(by_folders, out):
    out.mkdir()
    (out / "evaluation.json").write_text("{}")
    with pytest.raises(InputError, match=r"evaluation\.json: exists; expected a new folder, or --overwrite true"):
        evaluate(dataclasses.replace(by_folders, overwrite=False))
    assert _contents(out) == {"evaluation.json": b"{}"}


def test_label_maps_of_others_are_replaced_only_when_told(by_model, out, monkeypatch):
    mine = {f"predictions/case_{number:05d}.nii.gz": b"mine" for number in (1, 77)}
    (out / "predictions").mkdir(parents=True)
    for name, content in mine.items():
        (out / name).write_bytes(content)
    careful = dataclasses.replace(by_model, overwrite=False)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "score_model", lambda *arguments, **options: pytest.fail("segmented in vain"))
        with pytest.raises(InputError, match=r"predictions/case_00001\.nii\.gz: exists; expected a new folder"):
            evaluate(careful)
    assert _contents(out) == mine
    evaluate(by_model)
    assert (out / "predictions/case_00001.nii.gz").read_bytes() != b"mine"
    assert (out / "predictions/case_00077.nii.gz").read_bytes() == b"mine"  # no case that is scored
    with pytest.raises(InputError, match=r"scores\.csv: exists; expected a new folder, or --overwrite true"):
        evaluate(careful)


def test_a_name_in_evaluation_json_reaches_no_other_folder(tmp_path):
    place, out = tmp_path / "out/.new", tmp_path / "out"
    (out / "predictions").mkdir(parents=True)
    place.mkdir()
    (place / "scores.csv").write_text("new")
    (tmp_path / "mine.nii.gz").write_text("mine")
    (out / "evaluation.json").write_text('{"case_digests": {"../../mine": "0"}}')
    put_in_place(place, out, overwrite=True)
    assert (tmp_path / "mine.nii.gz").read_text() == "mine"
    assert (out / "scores.csv").read_text() == "new"
