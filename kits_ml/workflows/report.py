"""What an evaluation leaves behind: tables, summary, pictures and the report, in a folder and in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from kits_ml import figures
from kits_ml.evaluation import aggregates, case_slices, evidence, report, summary, tables
from kits_ml.labels import REGIONS
from kits_ml.scores import composite_dice
from kits_ml.workflows.evaluation_folder import BOX_PLOT_PNG, files_of, overlay_path


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        cases: scores by case, in order of names.
        summary: see `summary.summarise_evaluation`.
        output: the folder with the files of `evaluation_folder.files_of`; from `evaluate` also `selftest.csv`.
    """

    cases: list[tables.CaseScores]
    summary: Mapping[str, Any]
    output: Path


@dataclass(frozen=True, kw_only=True)
class ShownCase:
    """A case to look at.

    Attributes:
        image: `(slices, rows, columns)` in HU.
        label_map_true, label_map_pred: the same shape, values 0, 1, 2.
        spacing_mm: distance between slices, rows and columns.
    """

    image: np.ndarray
    label_map_true: np.ndarray
    label_map_pred: np.ndarray
    spacing_mm: tuple[float, float, float]


#: Reads a case by its name; None where there is nothing to see.
Loader = Callable[[str], ShownCase | None]


def write_evaluation(
    scored: Sequence[tables.CaseScores],
    *,
    output: Path,
    failures: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    load: Loader | None = None,
    case_digests: Mapping[str, str] | None = None,
) -> Evaluated:
    """Writes `scores.csv`, `cases.csv`, `summary.json`, `report.html`, the pictures, and `evaluation.json`.

    Args:
        scored: one for each patient, at least one.
        output: the folder.
        failures: message by name of the cases that could not be scored.
        facts: what was evaluated on what, by name, for the report; `data digest` among it.
        settings: of the evaluation and of the model, by name, for the report.
        load: reads the worst, median and best case; without it there are no slices to see.
        case_digests: of each case's files, by name, for `evaluation.json`, by which the gate knows what was scored.
    """
    scored = sorted(scored, key=lambda case: case.case)
    found = summary.summarise_evaluation(scored, failures=failures)
    tables.write_scores(output / tables.SCORES_CSV, scored)
    summary.write_cases(output / summary.CASES_CSV, scored)
    if case_digests is not None:
        evidence.write_evaluation_json(output, case_digests)
    aggregates.write_summary(output / aggregates.SUMMARY_JSON, found)
    dice = {region: {"model": [case.regions[region].dice for case in scored]} for region in REGIONS}
    figures.save_figure(output / BOX_PLOT_PNG, figures.box_plot_of_scores(dice, title="Dice per case"))
    slices = _draw(scored, load, output=output) if load else []
    report.write_report(
        output / report.REPORT_HTML, scored, found, facts=facts or {}, settings=settings or {}, slices=slices
    )
    return Evaluated(cases=scored, summary=found, output=output)


def log_evaluation(evaluated: Evaluated, *, part: str | None = None) -> None:
    """Logs the files and the means of an evaluation to the active MLflow run.

    Args:
        evaluated: what was found.
        part: of the split, `validation` or `test`: a folder of the artifacts and the beginning of the metrics' names.
    """
    for path in files_of(evaluated.output):
        mlflow.log_artifact(str(path), part)
    found = evaluated.summary
    means = {
        f"{metric}_{region}": values[metric]["mean"]
        for region, values in found["regions"].items()
        for metric in ("dice", "iou", "surface_dice")
    }
    means["composite_dice"] = found["composite_dice"]["mean"]
    for name, label in (found["calibration"] or {}).get("kidneys", {}).items():
        if name != "brier":
            means[f"ece_{name}"] = label["ece"]["mean"]
    seconds = [case.prediction_seconds for case in evaluated.cases if not math.isnan(case.prediction_seconds)]
    if seconds:  # without the part's name: a cost of the model, as `comparison.costs` reads it
        mlflow.log_metric("prediction_seconds", math.fsum(seconds) / len(seconds))
    prefix = f"{part}_" if part else ""
    mlflow.log_metrics({f"{prefix}{name}": value for name, value in means.items() if not math.isnan(value)})


def chosen_cases(scored: Sequence[tables.CaseScores]) -> dict[str, tables.CaseScores]:
    """The cases to look at; of those that show something, if any do: an empty one left empty teaches nothing.

    Returns:
        By `evaluation_folder.RANKS`; one case may stand under several.
    """
    shown = [case for case in scored if any(scores.volume_true_ml for scores in case.regions.values())] or scored
    ordered = sorted(shown, key=lambda case: (-composite_dice(case.regions), case.case))
    if not ordered:
        return {}
    return {"worst": ordered[-1], "median": ordered[len(ordered) // 2], "best": ordered[0]}


def _draw(scored: Sequence[tables.CaseScores], load: Loader, *, output: Path) -> list[case_slices.CaseSlices]:
    """Writes an overlay for each rank, and gives the slices of each case once."""
    drawn: dict[str, case_slices.CaseSlices] = {}
    for rank, scores in chosen_cases([case for case in scored if not case.missing_prediction]).items():
        shown = load(scores.case)
        if shown is None:
            continue
        _draw_overlay(shown, scores, rank=rank, output=output)
        if scores.case not in drawn:
            drawn[scores.case] = case_slices.slices_of_case(
                shown.image,
                shown.label_map_true,
                shown.label_map_pred,
                spacing_mm=shown.spacing_mm,
                case=scores.case,
                rank=rank,
            )
    return list(drawn.values())


def _draw_overlay(shown: ShownCase, scores: tables.CaseScores, *, rank: str, output: Path) -> None:
    dice = ", ".join(f"{region} Dice {found.dice:.3f}" for region, found in scores.regions.items())
    figure = figures.overlay_of_case(
        shown.image,
        shown.label_map_true,
        shown.label_map_pred,
        spacing_mm=shown.spacing_mm,
        title=f"{rank} case: {scores.case}\n{dice}",
    )
    figures.save_figure(overlay_path(output, rank), figure)
