"""Score a model on whole cases, or a folder of predictions against a folder of references."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import mlflow
from tqdm import tqdm

import kits_ml
from kits_ml import files
from kits_ml.config import EvaluateSettings
from kits_ml.data import cases as case_files
from kits_ml.data import images, patients, volumes
from kits_ml.data.partial import sha256_of
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.evaluation import folders, selftest, subjects, tables
from kits_ml.evaluation.calibration import CalibrationCounter
from kits_ml.evaluation.evidence import digest_of
from kits_ml.evaluation.measured import measure_case
from kits_ml.inference.ensemble import Ensemble
from kits_ml.inference.predictor import MODEL_FILE, Predictor
from kits_ml.inference.segmenting import Observer
from kits_ml.tracking import runs
from kits_ml.workflows import evaluation_folder
from kits_ml.workflows.evaluation_folder import prediction_path
from kits_ml.workflows.report import Evaluated, Loader, ShownCase, log_evaluation, write_evaluation
from kits_ml.workflows.segmenters import Segmenter, load_segmenter, members_of

log = logging.getLogger(__name__)


def evaluate(settings: EvaluateSettings) -> Evaluated:
    """Runs the evaluation that the settings ask for.

    Raises:
        InputError: settings that don't go together, files that cannot be used, an output that exists, a tracking
            server that does not answer.
        CasesFailedError: some cases failed; the scores of the others are written. If all failed, what was in the
            output folder is untouched, as after any other error.
        MetricMisreadsError: a metric does not read what theory says; nothing is scored.
    """
    by_model = settings.model is not None and settings.data is not None
    by_folders = settings.predictions is not None and settings.references is not None
    given = [settings.model, settings.data, settings.predictions, settings.references]
    if by_model == by_folders or sum(value is not None for value in given) != 2:
        raise InputError("evaluate: expected either --model with --data, or --predictions with --references")
    if by_folders and settings.postprocessing == "given":
        raise InputError(
            "postprocessing: found given with --predictions; expected --model, whose label maps it cleans"
        )
    output = Path(settings.output)
    there = evaluation_folder.files_of(output)
    if there and not settings.overwrite:
        raise InputError(f"{there[0]}: exists; expected a new folder, or --overwrite true")
    tested = selftest.run_selftest(subjects.metrics_in_use())
    run = runs.run(experiment=settings.experiment, run_name="evaluate") if settings.track else None
    with run or contextlib.nullcontext():
        if settings.track:
            runs.log_settings(settings)
        with evaluation_folder.staged(output) as place:
            scored, failures, described = _by_folders(settings) if by_folders else _by_model(settings, place)
            evaluated, inputs = None, described.pop("inputs")
            if scored:
                files.write_bytes(place / selftest.SELFTEST_CSV, selftest.to_csv(tested).encode())
                found = write_evaluation(scored, output=place, failures=failures, **described)
                evaluation_folder.put_in_place(place, output, overwrite=settings.overwrite, inputs=inputs)
                evaluated = dataclasses.replace(found, output=output)
        if settings.track and evaluated:
            log_evaluation(evaluated)
            mlflow.set_tag("data_digest", described["facts"]["data digest"])
        if failures:
            raise CasesFailedError(failures, len(scored) + len(failures))
    return evaluated


def score_model(
    predictor: Predictor | Segmenter,
    cases: Mapping[str, case_files.Case],
    *,
    output: Path,
    description: str = "evaluate",
) -> tuple[list[tables.CaseScores], dict[str, str]]:
    """Segments and scores whole cases on their own grid.

    Args:
        predictor: whose `segment` is called.
        cases: by name.
        output: gets the label maps, `predictions/<case>.nii.gz`.
        description: what the progress bar says.

    Returns:
        The scores, and the messages of cases that could not be read.
    """
    scored: list[tables.CaseScores] = []
    failures: dict[str, str] = {}
    for name, case in tqdm(cases.items(), desc=description, unit="case"):
        try:
            image, reference = case_files.load_case(case)
            counter = CalibrationCounter(reference.array, spacing_mm=image.spacing_mm)
            timed = _Timed(counter)
            label_map = predictor.segment(image.array, spacing_mm=image.spacing_mm, observe=timed)
            prediction_seconds = timed.seconds()
        except InputError as error:
            failures[name] = str(error)
            tqdm.write(f"{name}: {error}")
            continue
        volumes.write_label_map(prediction_path(output, name), label_map, image.geometry)
        measured = measure_case(
            name,
            label_map_true=reference.array,
            label_map_pred=label_map,
            spacing_mm=reference.spacing_mm,
            image=image.array,
            calibration=counter.result(),
        )
        scored.append(dataclasses.replace(measured, prediction_seconds=prediction_seconds))
    return scored, failures


class _Timed:
    """An observer with a stopwatch that runs while it does not observe: what the prediction itself takes."""

    def __init__(self, observe: Observer):
        self._observe = observe
        self._started = time.perf_counter()
        self._observing = 0.0

    def __call__(self, *slice_probabilities: Any) -> None:
        begun = time.perf_counter()
        self._observe(*slice_probabilities)
        self._observing += time.perf_counter() - begun

    def seconds(self) -> float:
        """Since it was made, without the time in which it observed."""
        return time.perf_counter() - self._started - self._observing


def loader_of(cases: Mapping[str, case_files.Case], *, output: Path) -> Loader:
    """Reads a case that `score_model` scored."""

    def load(name: str) -> ShownCase:
        image, reference = case_files.load_case(cases[name])
        predicted = volumes.read_label_map(prediction_path(output, name))
        return ShownCase(
            image=image.array,
            label_map_true=reference.array,
            label_map_pred=predicted.array,
            spacing_mm=image.spacing_mm,
        )

    return load


def describe_model(predictor: Predictor | Ensemble) -> dict[str, Any]:
    """What the report says of a model."""
    known = predictor.description
    return {
        "architecture": known.get("architecture"),
        "slices seen at once": ", ".join(str(one.input_slices) for one in members_of(predictor)),
        "training run": known.get("run_id"),
        "training data digest": known.get("data_digest"),
        "cases seen in training": len(known.get("seen_cases", {})) or None,
        "kits_ml": kits_ml.__version__,
        "code": runs.git_commit(),
    }


def _by_model(
    settings: EvaluateSettings, output: Path
) -> tuple[list[tables.CaseScores], dict[str, str], dict[str, Any]]:
    segmenter = load_segmenter(settings.model, settings)
    network = segmenter.network
    cases = {case.name: case for case in case_files.find_cases(settings.data)}
    cases = select_unseen(cases, network) if settings.subset == "unseen" else cases
    if not settings.overwrite:
        evaluation_folder.check_no_label_maps(Path(settings.output), cases)
    scored, failures = score_model(segmenter, cases, output=output)
    case_digests = {name: case.digest() for name, case in cases.items() if name not in failures}
    versions = [one.registered_as for one in segmenter.models]
    facts = {
        "model": settings.model,
        "model version": ", ".join(filter(None, versions)) or None,
        "model digest": ", ".join(one.sha256[MODEL_FILE][:16] for one in segmenter.models),
        "data": settings.data,
        "data digest": digest_of(case_digests),
        **describe_model(network),
    }
    shown = {**settings.to_dict(), **segmenter.postprocessing.to_dict(), **_preparations(network)}
    load = loader_of(cases, output=output)
    described = {"facts": facts, "settings": shown, "load": load, "case_digests": case_digests}
    return scored, failures, {**described, "inputs": ()}


def _preparations(network: Predictor | Ensemble) -> dict[str, Any]:
    members = members_of(network)
    return {
        f"model{f' {number}' if len(members) > 1 else ''}: {key}": value
        for number, one in enumerate(members, start=1)
        for key, value in one.settings.to_dict().items()
    }


def _by_folders(settings: EvaluateSettings) -> tuple[list[tables.CaseScores], dict[str, str], dict[str, Any]]:
    scored, failures = folders.score_folders(
        settings.predictions, settings.references, num_workers=settings.num_workers
    )
    predicted, expected = (folders.find_label_maps(folder) for folder in (settings.predictions, settings.references))

    def load(name: str) -> ShownCase | None:
        reference = volumes.read_label_map(expected[name])
        image = folders.read_image_of(reference)
        if image is None:
            return None
        return ShownCase(
            image=image.array,
            label_map_true=reference.array,
            label_map_pred=volumes.read_label_map(predicted[name]).array,
            spacing_mm=reference.spacing_mm,
        )

    digests = {
        f"{case.case}/{kind}": sha256_of(paths[case.case])
        for case in scored
        for kind, paths in (("reference", expected), ("prediction", predicted))
        if case.case in paths
    }
    facts = {
        "predictions": settings.predictions,
        "references": settings.references,
        "data digest": digest_of(digests),
        "kits_ml": kits_ml.__version__,
        "code": runs.git_commit(),
    }
    inputs = (*predicted.values(), *expected.values())
    return scored, failures, {"facts": facts, "settings": settings.to_dict(), "load": load, "inputs": inputs}


def select_unseen(
    cases: Mapping[str, case_files.Case], predictor: Predictor | Ensemble
) -> dict[str, case_files.Case]:
    """Leaves out the cases whose files, or whose scans under another name, the model was trained on or chosen by.

    Raises:
        InputError: it has seen them all.
    """
    seen = set(predictor.description.get("seen_cases", {}).values())
    seen_slices = {one for slices in predictor.description.get("seen_slices", {}).values() for one in slices}
    if not seen:
        return dict(cases)
    unseen = {
        name: case
        for name, case in tqdm(cases.items(), desc="look for seen cases", unit="case")
        if case.digest() not in seen and not _is_known_again(case, seen_slices)
    }
    if not unseen:
        raise InputError(
            f"all {len(cases)} cases were seen in training: scores on them say nothing about new scans; "
            "give other cases, or --subset all"
        )
    if len(unseen) < len(cases):
        log.info("left out %d of %d cases that were seen in training", len(cases) - len(unseen), len(cases))
    return unseen


def _is_known_again(case: case_files.Case, seen_slices: Set[str]) -> bool:
    try:
        return bool(seen_slices) and patients.known_again(images.read_image(case.image_path).array, seen_slices)
    except InputError:
        return False  # scoring it says what is wrong with it
