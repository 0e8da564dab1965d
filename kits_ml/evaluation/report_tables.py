"""The tables of the report, as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kits_ml import labels
from kits_ml.evaluation.calibration import DOMAINS
from kits_ml.evaluation.summary import worst_first
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import composite_dice

#: What a metric is called, its unit, and how many digits follow the point.
METRICS: Mapping[str, tuple[str, str, int]] = {
    "dice": ("Dice", "", 3),
    "iou": ("IoU", "", 3),
    "surface_dice": ("surface Dice", "", 3),
    "precision": ("precision", "", 3),
    "recall": ("recall", "", 3),
    "hd95_mm": ("HD95", "mm", 1),
    "mean_surface_distance_mm": ("mean surface distance", "mm", 2),
    "volume_true_ml": ("true volume", "ml", 1),
    "volume_pred_ml": ("predicted volume", "ml", 1),
    "volume_error_ml": ("volume error", "ml", 1),
}

_DOMAIN_NAMES = {"kidneys": "around the kidneys", "scan": "the whole scan"}


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading, a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # adding 0 makes -0 a 0


def with_interval(found: Mapping[str, float], digits: int = 3) -> str:
    """A mean with its interval below it."""
    if math.isnan(found["ci_low"]):
        return number(found["mean"], digits)
    low, high = number(found["ci_low"], digits), number(found["ci_high"], digits)
    return f"{number(found['mean'], digits)}<small>{low} to {high}</small>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, style: str = "") -> str:
    """A table that scrolls by itself where the page is narrow. Cells are HTML; the first of a row is its heading.

    Args:
        head: headings of the columns.
        rows: cells.
        label: what it is, for those who cannot see it.
        style: class of the cells.
    """
    cells = "".join(f'<th scope="col">{one}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row" class="text">{first}</th>{"".join(_cell(one, style) for one in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<div class="card scroll" role="region" tabindex="0" aria-label="{html.escape(label)}"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def summary_table(summary: Mapping[str, Any]) -> str:
    """Every metric of every region: mean with interval, median, and what was left out."""
    head = ["metric"]
    for region in labels.REGIONS:
        head += [f"{region}: mean", "median", "undefined"]
    rows = []
    for metric, (name, unit, digits) in METRICS.items():
        row = [f"{name}, {unit}" if unit else name]
        for region in labels.REGIONS:
            found = summary["regions"][region][metric]
            row += [with_interval(found, digits), number(found["median"], digits), str(found["num_undefined"])]
        rows.append(row)
    return table(head, rows, label="summary of all metrics")


def strata_table(summary: Mapping[str, Any]) -> str:
    """One row a stratum of every division of which something is known."""
    head = ["cases", "n", "composite Dice", "kidney Dice", "tumour Dice", "of those with tumour", "tumours found"]
    rows = []
    for division, strata in summary["strata"].items():
        for stratum, found in strata.items():
            tumour, lesions = found["regions"]["tumour"]["dice"], found["lesions"]
            rows.append(
                [
                    f"{division}: {stratum}".replace("_", " "),
                    str(found["num_cases"]),
                    with_interval(found["composite_dice"]),
                    with_interval(found["regions"]["kidney"]["dice"]),
                    with_interval(tumour),
                    with_interval(tumour["with_region"]),
                    f"{lesions['num_found']} of {lesions['num_true']}",
                ]
            )
    return table(head, rows, label="strata")


def lesion_table(summary: Mapping[str, Any]) -> str:
    """Tumours found, missed and false, by size."""
    lesions = summary["lesions"]
    rows = []
    for name, found in [("all", lesions), *lesions["by_size"].items()]:
        counts = [str(found[key]) for key in ("num_true", "num_found", "num_missed", "num_false")]
        rows.append([name.replace("_", " "), *counts, number(found["found_rate"], 2)])
    return table(["diameter", "tumours", "found", "missed", "false", "part found"], rows, label="tumours by size")


def confusion_table(confusion: Mapping[str, Any]) -> str:
    """Shares of each true label with the voxels below them, darker where there are more."""
    names = confusion["labels"]
    rows = []
    for name, shares, voxels in zip(names, confusion["row_shares"], confusion["voxels"], strict=True):
        cells = [
            f'<td class="matrix" style="background: rgba(var(--shade), {_shade(share):.2f})">'
            f"{number(share, 4)}<small>{count:,}</small></td>"
            for share, count in zip(shares, voxels, strict=True)
        ]
        rows.append([name, *cells])
    return table(["true label", *(f"called {name}" for name in names)], rows, label="confusion matrix")


def calibration_table(calibration: Mapping[str, Any]) -> str:
    """ECE and Brier of each label, by domain."""
    rows = []
    for domain in DOMAINS:
        for label in labels.LABEL_NAMES.values():
            found = calibration[domain][label]
            rows.append(
                [
                    f"{label}, {_DOMAIN_NAMES[domain]}",
                    with_interval(found["ece"], 4),
                    number(found["ece_pooled"], 4),
                    with_interval(found["brier"], 4),
                ]
            )
        rows.append([f"all labels, {_DOMAIN_NAMES[domain]}", "", "", with_interval(calibration[domain]["brier"], 4)])
    return table(["label", "ECE a case", "ECE, voxels pooled", "Brier score"], rows, label="calibration")


def cases_table(cases: Sequence[CaseScores]) -> str:
    """One row a case, the worst first."""
    head = ["case", "composite", "kidney Dice", "tumour Dice", "kidney surface", "tumour surface", "kidney HD95, mm"]
    head += ["tumour HD95, mm", "kidney, ml", "tumour, ml", "tumours found", "false", "slices, mm", "kidney HU"]
    rows = []
    for case in worst_first(cases):
        kidney, tumour = case.regions["kidney"], case.regions["tumour"]
        missing = "<small>no prediction</small>" if case.missing_prediction else ""
        row = [html.escape(case.case) + missing, number(composite_dice(case.regions))]
        row += [number(value) for value in (kidney.dice, tumour.dice, kidney.surface_dice, tumour.surface_dice)]
        row += [number(kidney.hd95_mm, 1), number(tumour.hd95_mm, 1)]
        row += [
            f"{number(one.volume_pred_ml, 1)}<small>true {number(one.volume_true_ml, 1)}</small>"
            for one in (kidney, tumour)
        ]
        row += [f"{tumour.lesions_found} of {tumour.lesions_true}", str(tumour.lesions_false)]
        row += [number(case.slice_spacing_mm, 2), number(case.kidney_hu, 0)]
        rows.append(row)
    return table(head, rows, label="all cases, the worst first")


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values."""
    shown = {name: "–" if value is None else str(value) for name, value in facts.items()}
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in shown.items()
    )
    return f'<div class="card"><table class="facts"><tbody>{rows}</tbody></table></div>'


def _shade(share: float) -> float:
    """How dark a cell is; the text on it stays readable."""
    return 0.0 if math.isnan(share) else 0.45 * share


def _cell(content: str, style: str) -> str:
    if content.startswith("<td"):
        return content
    return f'<td class="{style}">{content}</td>' if style else f"<td>{content}</td>"
