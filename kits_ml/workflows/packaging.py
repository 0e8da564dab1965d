"""What a training leaves for others: the model with all it carries, logged, registered and put through the gate."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from kits_ml.config import PromoteSettings, TrainSettings
from kits_ml.data import images
from kits_ml.errors import InputError, StoppedError, first_line
from kits_ml.evaluation import aggregates, evidence, tables
from kits_ml.inference.engines import ONNX_FILE
from kits_ml.inference.predictor import Predictor
from kits_ml.models.onnx_export import export_onnx
from kits_ml.tracking import model_card, registry, runs
from kits_ml.tracking.model_card import Card
from kits_ml.workflows.prepare import Prepared
from kits_ml.workflows.promote import Promotion, pass_gate
from kits_ml.workflows.report import Evaluated
from kits_ml.workflows.resume import stopped_with

log = logging.getLogger(__name__)

#: Slices and pixels of the input example that is logged with the model.
EXAMPLE_SHAPE = (2, 64, 64)

EVALUATION_FOLDER = "evaluation"


def log_and_register(
    predictor: Predictor,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    evaluated: Mapping[str, Evaluated],
    example_scan: Path,
) -> registry.Registered | None:
    """Logs the model to the active run; registers it as challenger where `register` is on.

    Args:
        predictor: network and preparation.
        prepared: what it was trained on.
        settings: of the training.
        evaluated: what was found, by part of the split.
        example_scan: a scan to cut the input example from.
    """
    input_example, spacing_mm = input_example_of(example_scan)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        card = write_folder(folder, predictor, prepared, settings, evaluated=evaluated)
        model_uri = registry.log_model(folder, input_example=input_example, spacing_mm=spacing_mm)
    if not settings.register:
        return None
    return registry.register(model_uri, settings.model_name, description=model_card.short(card))


def put_through_gate(registered: registry.Registered | None, settings: TrainSettings) -> Promotion | None:
    """Lets the gate decide on a registered model. Whatever that comes to, its training is finished.

    Returns:
        None where nothing was registered, `promote` is off, or the gate did not answer.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; it says that the training is finished.
    """
    if registered is None or not settings.promote:
        return None
    name, version = registered.name, int(registered.version)
    later = f"kits-ml promote --model {name} --version {version}"
    try:
        return pass_gate(PromoteSettings(model=name, version=version, batch_size=settings.batch_size))
    except (InputError, MlflowException) as error:
        log.warning(
            "%s, version %d, did not come through the gate: %s; try `%s`", name, version, first_line(error), later
        )
        return None
    except (StoppedError, KeyboardInterrupt) as error:
        done = f"the training is finished and version {version} of {name} registered; its gate: {later}"
        raise stopped_with(error, done) from error


def write_folder(
    folder: Path,
    predictor: Predictor,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    evaluated: Mapping[str, Evaluated],
) -> Card:
    """Writes all that the model carries: network, preparation, ONNX export, evaluation and card.

    Returns:
        What the card is made of.
    """
    predictor.save(folder)
    for part, found in evaluated.items():
        place = folder / EVALUATION_FOLDER / part
        tables.write_scores(place / tables.SCORES_CSV, found.cases)
        aggregates.write_summary(place / aggregates.SUMMARY_JSON, found.summary)
        evidence.write_evaluation_json(place, _digests(found, prepared))
    card = Card(
        name=settings.model_name,
        description=predictor.description,
        preprocessing=predictor.settings.to_dict(),
        data=settings.data,
        num_cases={part: len(getattr(prepared.split, part)) for part in ("train", "validation", "test")},
        summaries={part: found.summary for part, found in evaluated.items()},
        digests={part: evidence.digest_of(_digests(found, prepared)) for part, found in evaluated.items()},
        requirements=registry.requirements(),
        onnx=_export(predictor, folder, settings),
        commit=runs.git_commit(),
    )
    model_card.write(card, folder)
    return card


def _export(predictor: Predictor, folder: Path, settings: TrainSettings) -> str | None:
    """Writes the ONNX file; a network that cannot be exported is a good model still. Gives the reason."""
    if not settings.onnx:
        return "onnx was off"
    try:
        export_onnx(predictor.model, folder / ONNX_FILE)
    except InputError as error:
        log.warning("the model goes without an ONNX file: %s", error)
        return str(error)
    return None


def _digests(found: Evaluated, prepared: Prepared) -> dict[str, str]:
    return {case.case: prepared.store.case_digests[case.case] for case in found.cases}


def input_example_of(scan: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The middle of a scan and its spacing in mm, coarse: small enough to store beside the model."""
    volume = images.read_image(scan)
    image = volume.array
    middle = len(image) // 2
    num_slices, num_rows, num_columns = EXAMPLE_SHAPE
    step_rows, step_columns = max(1, image.shape[1] // num_rows), max(1, image.shape[2] // num_columns)
    example = image[middle : middle + num_slices, ::step_rows, ::step_columns]
    slices_mm, rows_mm, columns_mm = volume.spacing_mm
    return np.ascontiguousarray(example, np.float32), (slices_mm, rows_mm * step_rows, columns_mm * step_columns)
