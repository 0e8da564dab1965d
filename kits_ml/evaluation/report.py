"""The report of an evaluation: one HTML file that needs nothing beside it and no network.

Where slices are shown it holds pictures of patients' scans: it is as confidential as they are.
"""

from __future__ import annotations

import html
import json
import math
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from kits_ml import files, labels
from kits_ml.evaluation import charts, report_tables
from kits_ml.evaluation.calibration import MARGIN_MM
from kits_ml.evaluation.case_slices import CaseSlices
from kits_ml.evaluation.report_tables import METRICS, number
from kits_ml.evaluation.tables import CaseScores

REPORT_HTML = "report.html"

#: Where the axis of distances begins: it is logarithmic, for a stray voxel far away is hundreds of millimetres off.
SMALLEST_DISTANCE_MM = 0.1

_TEMPLATE = "report.html"


def write_report(
    path: str | Path,
    cases: Sequence[CaseScores],
    summary: Mapping[str, Any],
    *,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    slices: Sequence[CaseSlices] = (),
) -> None:
    """Writes the report; the file appears whole or not at all, and equal inputs give equal bytes.

    Args:
        path: the html file.
        cases: what was scored.
        summary: of the same, see `summary.summarise_evaluation`.
        facts: what was evaluated on what, by name: model, version, digest of the data.
        settings: of the evaluation, and of the model's preparation.
        slices: of the worst, median and best case, where there are images.
    """
    sections = [section for section in _sections(cases, summary, facts, settings, slices) if section[2]]
    failed = len(summary["failed_cases"])
    page = string.Template(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    text = page.substitute(
        title="Evaluation of a kidney segmentation",
        subtitle=html.escape(_subtitle(summary, facts)),
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        notes=_notes(summary, failed),
        tiles=_tiles(summary),
        sections="\n".join(
            f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in sections
        ),
        footer="Research use; not a medical device. Means are over patients, never over slices; intervals are 95 % "
        "percentile bootstraps, drawing patients with replacement.",
    )
    files.write_bytes(Path(path), text.encode())


def _sections(
    cases: Sequence[CaseScores],
    summary: Mapping[str, Any],
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    slices: Sequence[CaseSlices],
) -> list[tuple[str, str, str]]:
    """Name, title and content; an empty content leaves a section out."""
    return [
        ("summary", "Summary", _SUMMARY_TEXT + report_tables.summary_table(summary)),
        ("cases-seen", "Worst, median and best case", _viewers(cases, slices)),
        ("distributions", "Every case", _distributions(cases)),
        ("volumes", "Volumes", _volumes(cases)),
        ("tumours", "Tumours found", _LESION_TEXT + report_tables.lesion_table(summary)),
        ("strata", "By tumour size, slice spacing and contrast", _STRATA_TEXT + report_tables.strata_table(summary)),
        ("calibration", "Can its probabilities be believed?", _calibration(summary["calibration"])),
        ("confusion", "What was taken for what", _confusion(summary["confusion"])),
        ("all-cases", "All cases, the worst first", report_tables.cases_table(cases)),
        ("provenance", "What was evaluated", _provenance(facts, settings)),
    ]


_SUMMARY_TEXT = (
    "<p>On each scan's own grid, by the rules of KiTS: the kidney includes its tumour; both masks empty count as 1, "
    "one empty as 0. Distances of an empty mask are undefined: left out of the mean, and counted.</p>"
)
_LESION_TEXT = (
    "<p>A tumour is found if a tenth of it was predicted; a predicted one is false if less than a tenth of it lies "
    "on a true one. By the diameter of a sphere of its volume.</p>"
)
_STRATA_TEXT = (
    "<p>Few patients a row give wide intervals: read those first. Contrast is the mean HU of the true kidney without "
    "tumour: unenhanced up to 60, weak up to 120, strong above; it shows where the scans are there.</p>"
)


def _subtitle(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    what = facts.get("model") or facts.get("predictions") or "predictions"
    count = summary["num_cases"]
    return f"{what} on {count} case{'s' if count != 1 else ''}"


def _notes(summary: Mapping[str, Any], failed: int) -> str:
    notes = []
    if summary["missing_predictions"]:
        names = ", ".join(summary["missing_predictions"])
        notes.append(f"Without a prediction, and so with the worst scores there are: {names}.")
    if failed:
        notes.append(f"{failed} not scored: " + "; ".join(summary["failed_cases"].values()))
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def _tiles(summary: Mapping[str, Any]) -> str:
    kidney, tumour = (summary["regions"][region]["dice"] for region in ("kidney", "tumour"))
    lesions = summary["lesions"]
    shown = summary["regions"]["tumour"]["num_with_region"]
    tiles = [
        ("composite Dice (KiTS19)", number(summary["composite_dice"]["mean"]), _range(summary["composite_dice"])),
        ("kidney Dice", number(kidney["mean"]), _range(kidney)),
        ("tumour Dice", number(tumour["mean"]), _range(tumour)),
        (
            f"tumour Dice, {shown} case{'s' if shown != 1 else ''} with tumour",
            number(tumour["with_region"]["mean"]),
            _range(tumour["with_region"]),
        ),
        (
            "tumours found",
            f"{lesions['num_found']} of {lesions['num_true']}",
            f"{lesions['num_false']} false ones",
        ),
        ("cases", str(summary["num_cases"]), f"{len(summary['missing_predictions'])} without prediction"),
    ]
    return "".join(
        f'<div class="tile"><span>{name}</span><b>{value}</b><span>{below}</span></div>'
        for name, value, below in tiles
    )


def _range(found: Mapping[str, float]) -> str:
    if math.isnan(found["ci_low"]):
        return "no interval from so few"
    return f"95 %: {number(found['ci_low'])} to {number(found['ci_high'])}"


def _distributions(cases: Sequence[CaseScores]) -> str:
    figures = []
    for metric in ("dice", "surface_dice", "hd95_mm"):
        name, unit, _ = METRICS[metric]
        scores = {
            region: {case.case: getattr(case.regions[region], metric) for case in cases} for region in labels.REGIONS
        }
        label = f"{name}, {unit}" if unit else name
        defined = [value for one in scores.values() for value in one.values() if not math.isnan(value)]
        shown = [max(value, SMALLEST_DISTANCE_MM) for value in defined]
        axis = charts.log_axis_around(shown, label=label) if unit else charts.share_axis(label)
        chart = charts.box_and_points(scores, axis=axis, title=f"{name} of every case, by region")
        below = f"; at the bottom up to {SMALLEST_DISTANCE_MM:g} mm" if shown != defined and unit else ""
        figures.append(_figure(chart, name + below))
    return (
        "<p>A point is a patient; a box holds the middle half of them, its line is the median.</p>"
        f'<div class="grid">{"".join(figures)}</div>'
    )


def _volumes(cases: Sequence[CaseScores]) -> str:
    tumours = {case.case: case.regions["tumour"] for case in cases}
    present = {case: (one.volume_true_ml, one.dice) for case, one in tumours.items() if one.volume_true_ml > 0}
    figures = []
    if present:
        chart = charts.points(
            {"tumour": present},
            x_axis=charts.log_axis_around([volume for volume, _ in present.values()], label="true tumour volume, ml"),
            y_axis=charts.share_axis("tumour Dice"),
            title="tumour Dice of every case with a tumour against the tumour's true volume",
        )
        without = len(cases) - len(present)
        left_out = f"; {without} without tumour left out" if without else ""
        figures.append(_figure(chart, f"Tumour Dice against tumour volume{left_out}"))
    for region in labels.REGIONS:
        pairs = {
            case.case: (case.regions[region].volume_true_ml, case.regions[region].volume_pred_ml)
            for case in cases
            if not case.missing_prediction
        }
        chart = charts.bland_altman(pairs, region=region, unit="ml", title=f"Bland-Altman plot of {region} volumes")
        caption = (
            f"{region.capitalize()} volume (Bland-Altman): the line is the mean difference, dashed are the limits "
            "within which 95 % would lie; missing predictions are left out"
        )
        figures.append(_figure(chart, caption))
    return f'<div class="grid">{"".join(figures)}</div>'


def _calibration(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return ""
    figures = [
        _figure(
            charts.reliability(
                calibration["kidneys"][name]["reliability"],
                label=name,
                title=f"reliability of the probability of {name}",
            ),
            name.capitalize(),
        )
        for name in labels.LABEL_NAMES.values()
    ]
    return (
        "<p>Of the voxels that were called tumour with a probability of 0.7, seven of ten should be tumour: then "
        "the points lie on the dashed line; below it the model is too sure. Bars are 95 % intervals over patients. "
        f"The curves are of the box around the true kidneys with {MARGIN_MM:g} mm on every side: in the whole scan "
        "nearly every voxel is background that nobody doubts, which makes any model look calibrated. Probabilities "
        "are those on the scan's own grid.</p>"
        f'<div class="grid">{"".join(figures)}</div><p></p>{report_tables.calibration_table(calibration)}'
    )


def _confusion(confusion: Mapping[str, Any] | None) -> str:
    if confusion is None:
        return ""
    return (
        "<p>Shares of each true label, and the voxels below them, pooled over all cases: here large kidneys and thin "
        "slices count more, so these are for finding faults, not for comparing models.</p>"
        + report_tables.confusion_table(confusion)
    )


def _viewers(cases: Sequence[CaseScores], slices: Sequence[CaseSlices]) -> str:
    if not slices:
        return ""
    by_name = {case.case: case for case in cases}
    toggles = "".join(
        f'<label><input type="checkbox" data-hides="{whose}" checked> {whose}</label>'
        for whose in ("truth", "prediction")
    )
    keys = (
        '<span class="key kidney">kidney</span><span class="key tumour">tumour</span>'
        '<span class="key">truth</span><span class="key dashed">prediction</span>'
    )
    viewers = "".join(_viewer(one, by_name[one.case]) for one in slices)
    return (
        f"<p>By the composite Dice. The left of a picture is the patient's right.</p><fieldset><legend>Contours"
        f'</legend>{toggles}{keys}</fieldset><div class="grid">{viewers}</div>'
    )


def _viewer(shown: CaseSlices, case: CaseScores) -> str:
    name, slider = html.escape(shown.case), f"slider-{shown.rank}"
    dice = ", ".join(f"{region} Dice {number(found.dice)}" for region, found in case.regions.items())
    first = shown.slices[shown.start]
    paths = "".join(
        f'<path class="{region} {whose}" data-name="{region}-{whose}"/>'
        for whose in ("truth", "prediction")
        for region in labels.REGIONS
    )
    content = [{"index": one.index, "text": one.text, "jpeg": one.jpeg, "paths": one.paths} for one in shown.slices]
    payload = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<figure class="viewer" data-case="{name}" data-last="{shown.num_slices - 1}">'
        f"<h3>{shown.rank}: {name}</h3><figcaption>whole case: {dice}</figcaption>"
        f'<div class="stage"><img width="{shown.width}" height="{shown.height}" alt="{name}, slice {first.index}" '
        f'src="{first.jpeg}"><svg viewBox="0 0 {10 * shown.width} {10 * shown.height}" aria-hidden="true">{paths}'
        f'</svg></div><label for="{slider}">slice, from the head down</label><input id="{slider}" type="range" '
        f'min="0" max="{len(shown.slices) - 1}" value="{shown.start}"><output for="{slider}"></output>'
        f'<script type="application/json">{payload}</script></figure>'
    )


def _provenance(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    return (
        f"{report_tables.facts_table(facts)}<p></p><details><summary>Settings</summary>"
        f"{report_tables.facts_table(settings)}</details>"
    )


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"
