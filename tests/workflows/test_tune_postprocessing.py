"""Validation patients show which cleaning helps; predict does it then. The network is a function."""

import contextlib
import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from kits_ml import cli, scores
from kits_ml.config import PostprocessingSettings, PredictSettings, TunePostprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import volumes
from kits_ml.errors import CasesFailedError, InputError, MetricMisreadsError
from kits_ml.workflows import tune_postprocessing as workflow
from kits_ml.workflows.predict import predict
from kits_ml.workflows.tune_postprocessing import tune_postprocessing

NUM_CASES = 12


@pytest.fixture
def data(tmp_path, make_case):
    """A bright spot far from the kidney (which is about 1.4 ml) is called kidney; it is none."""
    for number in range(NUM_CASES):
        case = make_case(tmp_path / "data", f"case_{number:05d}", seed=number)
        image = volumes.read_image(case / "imaging.nii.gz")
        image.array[2:4, 30:35, 12:17] = 250  # 50 voxels of 3 x 0.8 x 0.8 mm: 0.1 ml
        volumes.write_image(case / "imaging.nii.gz", image.array, image.geometry)
    return tmp_path / "data"


@pytest.fixture
def model(data, fake_model):
    """Trained on the first case; the last one is a test patient."""
    cases = {case.name: case for case in case_files.find_cases(data)}
    names = sorted(cases)
    seen = {name: cases[name].digest() for name in names[:-1]}
    return fake_model(seen_cases=seen, validation_cases=names[1:-1])


def _settings(data, model, **options) -> TunePostprocessingSettings:
    output = str(data.parent / "tuned")
    return TunePostprocessingSettings(model=model, data=str(data), output=output, num_workers=1, **options)


def test_what_helps_is_found_stored_and_used(data, model):
    stored = data.parent / "stored"
    tuned = tune_postprocessing(_settings(data, model, store=str(stored)))
    assert (tuned.num_cases, dict(tuned.failures)) == (NUM_CASES - 2, {})
    # the spot is smaller than 1 ml, and the kidney smaller than 5 ml: the first value helps, the others remove all
    assert tuned.chosen.minimum_kidney_ml == 1.0
    assert tuned.chosen.keep_largest_kidneys == 0  # the spot is one of the two largest
    assert [any(one.helps for one in found) for found in tuned.rounds] == [True] * (len(tuned.rounds) - 1) + [False]
    by_value = {one.value: one for one in tuned.rounds[0] if one.option == "minimum_kidney_ml"}
    assert by_value[1.0].num_better == NUM_CASES - 2
    with (tuned.output / "patients.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = {row["case"] for row in rows}
    assert names == {f"case_{number:05d}" for number in range(1, NUM_CASES - 1)}  # never a test patient
    with (tuned.output / "effects.csv").open() as stream:
        first = [row for row in csv.DictReader(stream) if row["round"] == "1" and row["helps"] == "true"]
    assert ("minimum_kidney_ml", "1.0", "composite_dice") in {
        (row["option"], row["value"], row["metric"]) for row in first
    }

    assert json.loads((stored / "model.json").read_text())["postprocessing"]["minimum_kidney_ml"] == 1.0
    assert (stored / "model.keras").read_bytes() == (stored.parent / "models/model/model.keras").read_bytes()


def test_a_misreading_metric_stops_the_search(data, model, monkeypatch):
    monkeypatch.setattr(scores, "dice_from_counts", lambda true, pred, both: 2 * both / max(true + pred, 1))
    with pytest.raises(MetricMisreadsError, match="case_composite_dice"):
        tune_postprocessing(_settings(data, model))
    assert not (data.parent / "tuned").exists()


def test_a_stored_model_is_registered_as_challenger(data, model, monkeypatch):
    """Without MLflow: that the model is logged with what helps, and with no evaluation of other label maps."""
    (Path(model) / "evaluation").mkdir()
    (Path(model) / "evaluation" / "scores.csv").write_text("of other label maps")
    (Path(model) / "MODEL_CARD.md").write_text("# kits\n\n## Intended use\n\nResearch.\n")
    (Path(model) / "MODEL_CARD_SHORT.md").write_text("Dice 0.9.\n\nTraining data abc.")
    seen = {}

    def log_model(folder, *, input_example, spacing_mm):
        seen["files"] = sorted(path.name for path in folder.iterdir())
        seen["postprocessing"] = json.loads((folder / "model.json").read_text())["postprocessing"]
        seen["spacing_mm"] = spacing_mm
        return "models:/m-1"

    monkeypatch.setattr(workflow.registry, "log_model", log_model)
    monkeypatch.setattr(workflow.registry, "register", lambda uri, name, *, description: (uri, name, description))
    monkeypatch.setattr(workflow.runs, "run", lambda **options: contextlib.nullcontext())
    monkeypatch.setattr(workflow.runs, "log_settings", lambda settings: None)
    monkeypatch.setattr(workflow.mlflow, "log_artifact", lambda path: seen.setdefault("logged", []).append(path))
    monkeypatch.setattr(workflow.tuning, "CANDIDATES", {"minimum_kidney_ml": (1.0,)})
    tuned = tune_postprocessing(_settings(data, model, store=str(data.parent / "stored"), model_name="kits"))
    told = "**This version cleans its label maps (`minimum_kidney_ml 1.0`). The results given here are those"
    assert tuned.registered[:2] == ("models:/m-1", "kits")
    assert tuned.registered[2].startswith(f"Dice 0.9.\n\n{told}")
    assert tuned.registered[2].endswith("**\n\nTraining data abc.")
    assert f"# kits\n\n{told}" in (data.parent / "stored" / "MODEL_CARD.md").read_text()
    assert "cleans" not in (Path(model) / "MODEL_CARD.md").read_text()
    assert seen["files"] == ["MODEL_CARD.md", "MODEL_CARD_SHORT.md", "model.json", "model.keras"]
    assert seen["postprocessing"] == tuned.chosen.to_dict()
    assert tuned.chosen.minimum_kidney_ml == 1.0
    assert [Path(one).name for one in seen["logged"]] == [
        *("effects.csv", "patients.csv", "postprocessing.yaml", "selftest.csv")
    ]
    assert (data.parent / "models/model/evaluation/scores.csv").exists()
    with pytest.raises(InputError, match="model_name: found kits without store"):
        _settings(data, model, model_name="kits")


def test_who_showed_what_helps_counts_as_seen(data, fake_model, monkeypatch):
    """One case is known by another name, and another one has the name of a case here."""
    digests = {case.name: case.digest() for case in case_files.find_cases(data)}
    seen = {"first": digests["case_00000"], "case_00003": "of another file"}
    stored = data.parent / "stored"
    monkeypatch.setattr(workflow.tuning, "CANDIDATES", {"minimum_kidney_ml": (1.0,)})
    tune_postprocessing(_settings(data, fake_model(seen_cases=seen), subset="all", store=str(stored)))
    found = json.loads((stored / "model.json").read_text())["seen_cases"]
    assert {name: found[name] for name in seen} == seen
    assert sorted(found.values()) == sorted([*digests.values(), "of another file"])
    assert found[f"case_00003 ({digests['case_00003'][:8]})"] == digests["case_00003"]


def test_a_model_that_does_not_say_what_it_has_seen_goes_on_so(data, fake_model):
    """Else the few cases would pass for all."""
    workflow.store(Path(fake_model()), data.parent / "stored", PostprocessingSettings(), chosen_by={"a": "1"})
    assert "seen_cases" not in json.loads((data.parent / "stored" / "model.json").read_text())


@pytest.mark.parametrize("name", ["imaging.nii.gz", "segmentation.nii.gz"])
def test_where_all_fail_each_is_named(data, fake_model, capsys, name):
    for path in data.rglob(name):
        path.write_bytes(b"no")
    with pytest.raises(CasesFailedError, match=f"12 of 12 cases failed:\n  case_00000: .*{name}"):
        tune_postprocessing(_settings(data, fake_model(), subset="all"))
    said = "".join(capsys.readouterr())
    assert all(f"case_{number:05d}: " in said for number in range(NUM_CASES))


def test_predict_does_what_is_stored_unless_told(data, model, fake_model):
    scan = str(data / "case_00011" / "imaging.nii.gz")
    outputs = {}
    cleaned = fake_model("cleaned", postprocessing=PostprocessingSettings(minimum_kidney_ml=1.0).to_dict())
    for name, options in {
        "plain": {"model": model},
        "stored": {"model": cleaned},
        "off": {"model": cleaned, "postprocessing": "given"},
        "given": {"model": model, "postprocessing": "given", "minimum_kidney_ml": 1.0},
        "ensemble": {
            "model": f"{cleaned}, {fake_model('cleaned too', content='x', postprocessing={'minimum_kidney_ml': 1.0})}"
        },
    }.items():
        output = data.parent / f"{name}.nii.gz"
        predict(PredictSettings(image=scan, output=str(output), **options))
        outputs[name] = np.asarray(nib.load(output).dataobj)
    assert outputs["plain"][2:4, 30:35, 12:17].any()
    assert not outputs["stored"][2:4, 30:35, 12:17].any()
    np.testing.assert_array_equal(outputs["off"], outputs["plain"])
    np.testing.assert_array_equal(outputs["given"], outputs["stored"])
    np.testing.assert_array_equal(outputs["ensemble"], outputs["stored"])
    with pytest.raises(InputError, match="the models of the ensemble store different ones"):
        predict(PredictSettings(image=scan, output=str(data.parent / "x.nii.gz"), model=f"{cleaned},{model}"))


def test_label_maps_that_are_there_are_used(data, model, fake_model, capsys):
    tuned = tune_postprocessing(_settings(data, model))
    before = (tuned.output / "effects.csv").read_text()
    settings = {"predictions": str(tuned.output / "predictions"), "overwrite": True}
    again = tune_postprocessing(_settings(data, model, **settings))
    assert (again.output / "effects.csv").read_text() == before
    (tuned.output / "predictions" / "case_00003.nii.gz").unlink()
    again = tune_postprocessing(_settings(data, model, **settings))
    assert list(again.failures) == ["case_00003"]
    assert "case_00003: " in capsys.readouterr().out
    others = data.parent / "others"
    others.mkdir()
    (others / "case_00077.nii.gz").touch()
    with pytest.raises(CasesFailedError, match=r"10 of 10 cases failed:\n  case_00001: .*others: no label map of it"):
        tune_postprocessing(_settings(data, model, predictions=str(others), overwrite=True))


def test_the_command_line_goes_on_to_predict(data, model, monkeypatch):
    arguments = ["--model", model, "--data", str(data), "--output", str(data.parent / "t"), "--num_workers", "1"]
    result = CliRunner().invoke(cli.main, ["tune-postprocessing", *arguments])
    assert result.exit_code == 0, result.output
    assert "chosen: minimum_kidney_ml 1.0" in result.output
    out = data.parent / "seg.nii.gz"
    arguments = ["--config", str(data.parent / "t" / "postprocessing.yaml"), "--model", model]
    arguments += ["--image", str(data / "case_00011/imaging.nii.gz"), "--output", str(out)]
    result = CliRunner().invoke(cli.main, ["predict", *arguments])
    assert result.exit_code == 0, result.output
    assert not np.asarray(nib.load(out).dataobj)[2:4, 30:35, 12:17].any()


def test_test_patients_are_never_taken_by_themselves(data, fake_model):
    with pytest.raises(InputError, match="does not tell its validation cases"):
        tune_postprocessing(_settings(data, fake_model("unknown")))
    with pytest.raises(InputError, match="none of its 12 cases is a validation case"):
        tune_postprocessing(_settings(data, fake_model("other", seen_cases={"a": "b"}, validation_cases=["a"])))
    assert not (data.parent / "tuned").exists()
