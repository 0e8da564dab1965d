"""Score a model on whole cases, or a folder of predictions against a folder of references."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kits_ml import figures, files, runtime
from kits_ml.config import EvaluateSettings
from kits_ml.data import cases as case_files
from kits_ml.data import images, patients, volumes
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.evaluation import aggregates, folders, selftest, subjects, tables
from kits_ml.inference.predictor import Predictor
from kits_ml.labels import REGIONS
from kits_ml.scores import composite_dice, score_case
from kits_ml.tracking import registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        cases: scores by case, in order of names.
        summary: means, medians and intervals; see `aggregates.summarise`.
        output: the folder with `scores.csv`, `summary.json` and pictures; from `evaluate` also `selftest.csv`.
    """

    cases: list[tables.CaseScores]
    summary: Mapping[str, Any]
    output: Path


def evaluate(settings: EvaluateSettings) -> Evaluated:
    """Runs the evaluation that the settings ask for.

    Raises:
        InputError: settings that don't go together, files that cannot be used, an output that exists.
        CasesFailedError: some cases failed; the scores of the others are written.
        MetricMisreadsError: a metric does not read what theory says; nothing is scored.
    """
    by_model = settings.model is not None and settings.data is not None
    by_folders = settings.predictions is not None and settings.references is not None
    given = [settings.model, settings.data, settings.predictions, settings.references]
    if by_model == by_folders or sum(value is not None for value in given) != 2:
        raise InputError("evaluate: expected either --model with --data, or --predictions with --references")
    output = Path(settings.output)
    if (output / tables.SCORES_CSV).exists() and not settings.overwrite:
        raise InputError(f"{output / tables.SCORES_CSV}: exists; expected a new folder, or --overwrite true")
    tested = selftest.run_selftest(subjects.metrics_in_use())
    if by_folders:
        scored, failures = folders.score_folders(
            settings.predictions, settings.references, num_workers=settings.num_workers
        )
    else:
        runtime.configure(num_threads=settings.num_threads)
        predictor = Predictor.load(registry.local_folder(settings.model), batch_size=settings.batch_size)
        cases = {case.name: case for case in case_files.find_cases(settings.data)}
        cases = _select_unseen(cases, predictor) if settings.subset == "unseen" else cases
        scored, failures = score_model(predictor, cases, output=output)
    files.write_bytes(output / selftest.SELFTEST_CSV, selftest.to_csv(tested).encode())
    evaluated = write_evaluation(scored, output=output, failures=failures) if scored else None
    if failures:
        raise CasesFailedError(failures, len(scored) + len(failures))
    return evaluated


def score_model(
    predictor: Predictor, cases: Mapping[str, case_files.Case], *, output: Path, description: str = "evaluate"
) -> tuple[list[tables.CaseScores], dict[str, str]]:
    """Segments and scores whole cases on their own grid.

    Args:
        predictor: the model with its preparation.
        cases: by name.
        output: gets the label maps, `predictions/<case>.nii.gz`, and overlays of the best, median and worst case.
        description: what the progress bar says.

    Returns:
        The scores, and the messages of cases that could not be read.
    """
    scored: list[tables.CaseScores] = []
    failures: dict[str, str] = {}
    for name, case in tqdm(cases.items(), desc=description, unit="case"):
        try:
            image, reference = case_files.load_case(case)
            label_map = predictor.segment(image.array, spacing_mm=image.spacing_mm)
        except InputError as error:
            failures[name] = str(error)
            tqdm.write(f"{name}: {error}")
            continue
        volumes.write_label_map(_prediction_path(output, name), label_map, image.geometry)
        regions = score_case(reference.array, label_map, spacing_mm=image.spacing_mm)
        scored.append(tables.CaseScores(case=name, regions=regions, slice_spacing_mm=image.spacing_mm[0]))
    for rank, chosen in _best_median_worst(scored).items():
        _draw_overlay(cases[chosen.case], chosen, rank=rank, output=output)
    return scored, failures


def write_evaluation(
    scored: Sequence[tables.CaseScores], *, output: Path, failures: Mapping[str, str] | None = None
) -> Evaluated:
    """Writes `scores.csv`, `summary.json` and the box plot. Cases that failed are named in the summary."""
    scored = sorted(scored, key=lambda case: case.case)
    summary = aggregates.summarise(scored, failures=failures or {})
    tables.write_scores(output / tables.SCORES_CSV, scored)
    aggregates.write_summary(output / aggregates.SUMMARY_JSON, summary)
    dice = {region: {"model": [case.regions[region].dice for case in scored]} for region in REGIONS}
    figures.save_figure(output / "dice.png", figures.box_plot_of_scores(dice, title="Dice per case"))
    return Evaluated(cases=scored, summary=summary, output=output)


def _select_unseen(cases: Mapping[str, case_files.Case], predictor: Predictor) -> dict[str, case_files.Case]:
    """Leaves out the cases whose files, or whose scans under another name, the model was trained on or chosen by."""
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


def _best_median_worst(scored: Sequence[tables.CaseScores]) -> dict[str, tables.CaseScores]:
    """The cases to look at; of those that show something, if any do: an empty one left empty teaches nothing."""
    shown = [case for case in scored if any(scores.volume_true_ml for scores in case.regions.values())] or scored
    ordered = sorted(shown, key=lambda case: (-composite_dice(case.regions), case.case))
    if not ordered:
        return {}
    return {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}


def _draw_overlay(case: case_files.Case, scored: tables.CaseScores, *, rank: str, output: Path) -> None:
    image, reference = case_files.load_case(case)
    predicted = volumes.read_label_map(_prediction_path(output, case.name))
    dice = ", ".join(f"{region} Dice {scores.dice:.3f}" for region, scores in scored.regions.items())
    figure = figures.overlay_of_case(
        image.array,
        reference.array,
        predicted.array,
        spacing_mm=image.spacing_mm,
        title=f"{rank} case: {case.name}\n{dice}",
    )
    figures.save_figure(output / f"overlay_{rank}.png", figure)


def _prediction_path(output: Path, name: str) -> Path:
    return output / "predictions" / f"{name}.nii.gz"
