"""The self-test as a command, and in front of training and evaluation."""

import csv
import io
import subprocess
import sys
import typing

import mlflow
import pytest
from click.testing import CliRunner

from kits_ml import cli, scores
from kits_ml.config import EvaluateSettings, SelftestSettings, TrainSettings
from kits_ml.errors import InputError, MetricMisreadsError
from kits_ml.evaluation import theory
from kits_ml.settings import value_type
from kits_ml.training.imported_metrics import load_metric
from kits_ml.workflows import evaluate as evaluation
from kits_ml.workflows import train as training
from kits_ml.workflows.selftest import selftest
from tests.tracking.stores import tracked_in

OWN_METRICS = """
import keras
from keras import ops

class Half(keras.metrics.OneHotMeanIoU):
    def result(self):
        return super().result() / 2

ready = keras.metrics.OneHotMeanIoU(num_classes=3)
number = 3

def accuracy(y_true, y_pred):
    return keras.metrics.categorical_accuracy(y_true, y_pred)

class Dice(keras.metrics.Metric):
    def __init__(self):
        super().__init__(name="dice")
        self.both = self.add_weight(name="both", shape=(3,), initializer="zeros")
        self.sizes = self.add_weight(name="sizes", shape=(3,), initializer="zeros")

    def predicted(self, probabilities):
        return ops.one_hot(ops.argmax(probabilities, axis=-1), 3)

    def update_state(self, y_true, y_pred, sample_weight=None):
        true, pred = ops.cast(y_true, "float32"), self.predicted(y_pred)
        self.both.assign_add(ops.sum(true * pred, axis=(0, 1, 2)))
        self.sizes.assign_add(ops.sum(true + pred, axis=(0, 1, 2)))

    def result(self):
        dice = ops.where(self.sizes > 0, 2 * self.both / ops.maximum(self.sizes, 1), 1)
        return ops.mean(dice[1:])

class SoftDice(Dice):
    def predicted(self, probabilities):
        return ops.cast(probabilities, "float32")
"""


@pytest.fixture
def own_metrics(tmp_path, monkeypatch) -> str:
    """A module of somebody's, in the working directory."""
    (tmp_path / "somebodys_metrics.py").write_text(OWN_METRICS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "somebodys_metrics", raising=False)
    return "somebodys_metrics"


def _run(*arguments: str):
    return CliRunner().invoke(cli.main, ["selftest", *arguments])


def test_the_metrics_in_use_pass_and_are_shown():
    result = _run()
    assert result.exit_code == 0, result.output
    assert "val_foreground_iou (iou, mean of labels 1+2, 2, mean over patients)" in result.output
    assert "all as theory says" in result.output
    assert "MISREAD" not in result.output


def test_the_reports_metric_stops_with_the_table():
    result = _run("--metric", "keras.metrics:MeanIoU", "--arguments", '{"num_classes": 3}')
    assert result.exit_code == 1
    assert "keras.metrics:MeanIoU: 15 of 17 known predictions misread" in result.output
    (background,) = [line for line in result.output.splitlines() if "all background, saturated" in line]
    # 1/8 foreground: ((7/8)/(9/8) + (15/8)/(17/8)) / 2, where a third of 7/8 would be right
    assert " ".join(background.split()) == "MISREAD all background, saturated expected 0.2917 found 0.8301"
    (perfect,) = [line for line in result.output.splitlines() if "perfect, p = 0.987" in line]
    assert " ".join(perfect.split()) == "MISREAD perfect, p = 0.987 expected 1.0000 found 0.3333"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--metric", "keras.metrics:OneHotMeanIoU"],  # num_classes is known
        ["--metric", "keras.metrics:OneHotIoU", "--arguments", "target_class_ids: [1, 2]"],
        ["--metric", "keras.metrics:CategoricalAccuracy", "--kind", "accuracy"],
        ["--metric", "keras.metrics:SparseCategoricalAccuracy", "--kind", "accuracy", "--labels", "sparse"],
        ["--metric", "keras.metrics:sparse_categorical_accuracy", "--kind", "accuracy", "--labels", "sparse"],
    ],
)
def test_metrics_that_pass(arguments):
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 metric, " in result.output


def test_anyones_metric(own_metrics):
    assert _run("--metric", f"{own_metrics}:ready").exit_code == 0
    assert _run("--metric", f"{own_metrics}:accuracy", "--kind", "accuracy").exit_code == 0
    result = _run("--metric", f"{own_metrics}:Half")
    assert result.exit_code == 1
    assert "perfect, saturated" in result.output
    assert "found 0.5000" in result.output


def test_anyones_dice(own_metrics):
    result = _run("--metric", f"{own_metrics}:Dice", "--kind", "dice")
    assert result.exit_code == 0, result.output
    assert "dice, mean of labels 1, 2, pooled over patients" in result.output
    assert _run("--metric", f"{own_metrics}:Dice").exit_code == 1  # it is no IoU


def test_anyones_dice_without_an_argmax_misreads(own_metrics):
    result = _run("--metric", f"{own_metrics}:SoftDice", "--kind", "dice")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if "perfect, p = 0.4/0.35/0.25" in line]
    assert line.split()[0] == "MISREAD"


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("keras.metrics", {}, "expected an import path such as 'keras.metrics:MeanIoU'"),
        ("keras.metrics:MeanIou", {}, "cannot be imported (module 'keras.metrics' has no attribute 'MeanIou')"),
        ("no_such_module:Metric", {}, "cannot be imported (No module named 'no_such_module')"),
        ("keras.metrics:MeanIoU", {"classes": 3}, "unexpected keyword argument 'classes'"),
        ("keras.metrics:OneHotIoU", {}, "missing 1 required positional argument: 'target_class_ids'"),
        ("keras.losses:Dice", {}, "expected a class of Keras metric, an instance or a function"),
        ("somebodys_metrics:number", {}, "found 3, expected a class of Keras metric"),
    ],
)
def test_bad_metrics(path, arguments, message, own_metrics):
    with pytest.raises(InputError) as caught:
        load_metric(path, arguments)
    assert message in str(caught.value)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arguments": "a: 1"}, "arguments: found without --metric"),
        ({"metric": "keras.metrics:MeanIoU", "arguments": "{"}, "arguments: not YAML"),
        ({"metric": "keras.metrics:MeanIoU", "arguments": "3"}, "expected a mapping such as"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        selftest(SelftestSettings(**options))


def test_averages_are_those_of_theory():
    _, choices, optional = value_type(typing.get_type_hints(SelftestSettings)["average"])
    assert choices == tuple(theory.AVERAGES)
    assert optional


def test_it_answers_without_tracking():
    code = "import sys, kits_ml.workflows.selftest; assert not {'mlflow', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120, capture_output=True)


# ---- before training and evaluation


@pytest.fixture
def spoilt(monkeypatch):
    """Dice of nothing over nothing becomes 0: healthy patients would be taken for failures."""
    monkeypatch.setattr(scores, "dice_from_counts", lambda true, pred, both: 2 * both / max(true + pred, 1))


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tracked_in(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        yield


class ReachedTheDataError(Exception):
    pass


def _train_up_to_the_data(monkeypatch, **options) -> None:
    def prepare(settings):
        raise ReachedTheDataError

    monkeypatch.setattr(training, "prepare", prepare)
    training.train(TrainSettings(image_size=32, base_filters=4, depth=2, **options))


def _misread_in_the_run() -> set[str]:
    """The metrics that misread by `selftest.csv` in the only run there is."""
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/selftest.csv")
    return {row["metric"] for row in csv.DictReader(io.StringIO(text)) if row["ok"] == "false"}


def test_a_misreading_metric_stops_the_training_before_the_data(spoilt, tracking, monkeypatch):
    with pytest.raises(MetricMisreadsError, match="val_dice_tumour") as caught:
        _train_up_to_the_data(monkeypatch)
    assert "MISREAD  patient without tumour " in str(caught.value)
    assert _misread_in_the_run() >= {"val_dice_tumour", "case_composite_dice"}


def test_the_reports_metric_is_printed_and_stops_nothing(tracking, monkeypatch, caplog):
    with pytest.raises(ReachedTheDataError):
        _train_up_to_the_data(monkeypatch, as_reported=True)
    assert _misread_in_the_run() == {"as_reported/mean_iou"}
    assert "not to be believed: 15 of 17 known predictions misread" in caplog.text
    assert "all background, saturated" in caplog.text


def test_anyones_metrics_as_reported_are_printed_and_stop_nothing(tracking, own_metrics, monkeypatch, caplog):
    metrics = f"keras.metrics:MeanIoU, keras.metrics:OneHotMeanIoU, {own_metrics}:Half, {own_metrics}:accuracy"
    with pytest.raises(ReachedTheDataError):
        _train_up_to_the_data(monkeypatch, as_reported_metrics=metrics)
    assert _misread_in_the_run() == {"as_reported/MeanIoU", "as_reported/Half"}
    assert "as_reported/Half (iou, " in caplog.text
    assert "found 0.5000" in caplog.text  # half of a perfect prediction's 1
    assert "OneHotMeanIoU" not in caplog.text


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("no_such_module:Metric", "as_reported_metrics: no_such_module:Metric: cannot be imported"),
        ("keras.metrics:MeanIou", "as_reported_metrics: keras.metrics:MeanIou: cannot be imported"),
        ("keras.metrics.MeanIoU", "as_reported_metrics: keras.metrics.MeanIoU: expected an import path such as"),
        ("keras.metrics:OneHotIoU", "cannot be made (OneHotIoU.__init__() missing 1 required positional argument"),
        ("keras.metrics:F1Score", "as_reported_metrics: keras.metrics:F1Score: cannot be computed in a training"),
        ("keras.metrics:MeanIoU,", "found 'keras.metrics:MeanIoU,', expected import paths divided by single commas"),
        ("keras.metrics:MeanIoU,tf:MeanIoU", "both logged as MeanIoU; expected each name once"),
    ],
)
def test_a_bad_metric_as_reported_is_one_line_before_anything(metrics, message, tracking, monkeypatch):
    with pytest.raises(InputError) as caught:
        _train_up_to_the_data(monkeypatch, as_reported_metrics=metrics)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []


def test_a_misreading_metric_stops_the_evaluation(spoilt, tmp_path):
    settings = EvaluateSettings(predictions="p", references="r", output=str(tmp_path / "out"))
    with pytest.raises(MetricMisreadsError, match="case_dice_tumour"):
        evaluation.evaluate(settings)
    assert not (tmp_path / "out").exists()


def test_an_evaluation_keeps_the_table(tmp_path, make_case):
    folder = make_case(tmp_path / "references", "case_00000").parent
    settings = EvaluateSettings(
        predictions=str(folder), references=str(folder), output=str(tmp_path / "out"), num_workers=1, track=False
    )
    evaluation.evaluate(settings)
    with (tmp_path / "out/selftest.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert {row["ok"] for row in found} == {"true"}
    assert len(found) > 300


def test_the_command_line_prints_the_table(spoilt, tmp_path):
    result = CliRunner().invoke(
        cli.main, ["evaluate", "--predictions", "p", "--references", "r", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "MISREAD  patient without tumour " in result.output
    assert "Traceback" not in result.output
