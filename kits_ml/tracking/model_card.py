"""The model card: what a model is for, what it was made of, how good it is, and where it ends.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv:1810.03993). Every number comes from the
run; what was not measured is said to be missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_ml.labels import LABEL_NAMES

CARD_FILE, SHORT_FILE = "MODEL_CARD.md", "MODEL_CARD_SHORT.md"

PURPOSE = "Research use only. Not a medical device: not for diagnosis, treatment or planning."

#: Fewer test patients than this are called few in words too.
FEW_PATIENTS = 20

_METRICS = {"dice": "Dice", "iou": "IoU", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card is made of.

    Attributes:
        name: in the registry.
        description: of the saved model, `model.json`.
        preprocessing: its preparation, by setting.
        data: where the cases came from.
        num_cases: of each part of the split.
        summaries: by part of the split, what `summary.json` holds.
        digests: by part, of the evaluation.
        requirements: what its environment needs, pinned.
        onnx: why there is no ONNX file; None where there is one.
        commit: of the code; None outside a checkout.
    """

    name: str
    description: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    data: str
    num_cases: Mapping[str, int]
    summaries: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]
    requirements: Sequence[str]
    onnx: str | None
    commit: str | None


def render(card: Card) -> str:
    """The card as Markdown."""
    parts = [
        f"# {card.name}: kidney and kidney tumour on CT, {card.description['architecture']}",
        f"**{PURPOSE}**",
        _intended_use(card),
        _usage(card),
        _data(card),
        _preparation(card),
        _results(card),
        _limits(card),
        _provenance(card),
    ]
    return "\n\n".join(parts) + "\n"


def short(card: Card) -> str:
    """The card in a few lines, for the version's description in the registry."""
    lines = [f"{card.description['architecture']}, {card.num_cases.get('train', 0)} training patients. {PURPOSE}"]
    part = _shown_part(card)
    if part:
        summary = card.summaries[part]
        dice = "; ".join(f"{region} {_interval(one['dice'])}" for region, one in summary["regions"].items())
        lines.append(f"Dice of {summary['num_cases']} {part} patients: {dice}.")
    lines.append(f"Training data {card.description.get('data_digest')}. The whole card: {CARD_FILE} in the model.")
    return "\n\n".join(lines)


def write(card: Card, folder: Path) -> None:
    """Writes the card and its few lines beside the model that they are about."""
    (folder / CARD_FILE).write_text(render(card), encoding="utf-8")
    (folder / SHORT_FILE).write_text(short(card), encoding="utf-8")


def tell_cleaning(folder: Path, cleaning: Mapping[str, Any]) -> None:
    """Says in a copied model's card that it cleans its label maps, and that the results are from before.

    Args:
        folder: of the copy; without a card nothing is written.
        cleaning: the settings of its post-processing that are not their defaults.
    """
    what = ", ".join(f"`{name} {value}`" for name, value in cleaning.items())
    note = (
        f"**This version cleans its label maps ({what}). The results given here are those of the same network "
        "without cleaning; the version itself has not been scored yet.**"
    )
    for path in (folder / CARD_FILE, folder / SHORT_FILE):
        if path.is_file():
            first, _, others = path.read_text(encoding="utf-8").partition("\n\n")
            path.write_text("\n\n".join([first, note, others]), encoding="utf-8")


def read_short(folder: Path) -> str | None:
    """The few lines of a model's card; None where it carries none."""
    path = folder / SHORT_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _intended_use(card: Card) -> str:
    labels = ", ".join(f"{value} {name}" for value, name in LABEL_NAMES.items())
    return (
        "## Intended use\n\n"
        "Segments kidneys and kidney tumours on abdominal CT, for research on segmentation. In: one CT volume in HU. "
        f"Out: a label map on the same grid ({labels}); cysts count as kidney, as in KiTS19. Somebody has to look at "
        "every result. Not for other modalities, other organs, or any decision about a patient."
    )


def _usage(card: Card) -> str:
    onnx = (
        "`artifacts/model/model.onnx`, the same network for ONNX Runtime: prepared slices in, probabilities out"
        if card.onnx is None
        else f"no ONNX file ({card.onnx})"
    )
    return (
        "## How to load\n\n"
        f'- `mlflow.pyfunc.load_model("models:/{card.name}@champion")`: HU array in, label map out; parameters '
        "`orientation`, `spacing_mm`, `probabilities`\n"
        f'- `kits_ml.load("models:/{card.name}@champion")`: the same in Python, for files, DICOM folders and arrays\n'
        "- `artifacts/model/model.keras`, the plain Keras model, and `model.json`, its preparation\n"
        f"- {onnx}"
    )


def _data(card: Card) -> str:
    parts = ", ".join(f"{count} {part}" for part, count in card.num_cases.items())
    seen = len(card.description.get("seen_cases", {}))
    parent = card.description.get("init_from")
    lines = [
        "## Training data\n",
        f"- cases from `{card.data}`: {parts}; no patient is in two parts",
        f"- digest of the prepared data: `{card.description.get('data_digest')}`",
        f"- {seen} cases chose its weights, by training or validation; their digests are in `model.json`",
    ]
    lines += _training_range(card.description.get("training") or {})
    if parent:
        known = "whose cases count as seen" if parent["seen_cases_known"] else "of whose cases nothing is known"
        lines.append(f"- began with the weights of {parent['model']}, {known}")
    return "\n".join(lines)


def _training_range(training: Mapping[str, Any]) -> list[str]:
    """What the training scans were like, as far as that is known; see `data.training_range`."""
    if "spacing_mm" not in training:
        return []
    (slices_low, rows_low, _), (slices_high, rows_high, _) = (training["spacing_mm"][end] for end in ("low", "high"))
    lines = [
        f"- training scans: slices {_span(slices_low, slices_high)} mm apart, pixels of "
        f"{_span(rows_low, rows_high)} mm"
    ]
    if "kidney_hu" in training:
        low, high = training["kidney_hu"]["low"], training["kidney_hu"]["high"]
        lines.append(f"- their kidneys: {low:.0f} to {high:.0f} HU on average, which tells the contrast phases")
    return lines


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _preparation(card: Card) -> str:
    rows = [f"| {name} | {value} |" for name, value in card.preprocessing.items()]
    return "\n".join(["## Preparation\n", "| setting | value |", "|---|---|", *rows])


def _results(card: Card) -> str:
    if not card.summaries:
        return "## Results\n\nNone: the run scored no cases."
    lines = [
        "## Results\n",
        "Mean over patients, on the scans' own grids; in brackets the 95 % bootstrap interval.\n",
    ]
    lines += [f"| part | patients | region | {' | '.join(_METRICS.values())} |", f"|{'---|' * (3 + len(_METRICS))}"]
    for part, summary in card.summaries.items():
        for region, found in summary["regions"].items():
            values = " | ".join(_interval(found[metric]) for metric in _METRICS)
            lines.append(f"| {part} | {summary['num_cases']} | {region} | {values} |")
    lines += ["", *(f"Evaluation digest, {part}: `{digest}`." for part, digest in card.digests.items())]
    return "\n".join(lines)


def _limits(card: Card) -> str:
    lines = ["## Limits\n"]
    part = _shown_part(card)
    if part != "test":
        lines.append("- It was scored on no test patients: nothing here says how it does on new scans.")
    if part:
        lines += _measured_limits(card.summaries[part], part)
    if card.description.get("input_slices", 1) == 1:
        lines.append("- It sees one slice at a time, and nothing of the slices above and below.")
    lines += [
        f"- Its training and test scans come from one source (`{card.data}`): other scanners, contrast phases, "
        "children, transplants or single kidneys were not tested apart.",
        "- Its probabilities are not calibrated by anything; the evaluation's report shows how far they can be used.",
        "- It knows no other findings: cysts, stones, other masses and what surgery leaves may be taken for tumour.",
    ]
    return "\n".join(lines)


def _measured_limits(summary: Mapping[str, Any], part: str) -> list[str]:
    lines = []
    if summary["num_cases"] < FEW_PATIENTS:
        lines.append(f"- Few {part} patients ({summary['num_cases']}): the intervals say less than they seem to.")
    lesions = summary["lesions"]
    if lesions["num_true"]:
        missed = f"- It missed {lesions['num_missed']} of {lesions['num_true']} tumours of {part} patients"
        sizes = [
            f"{name.replace('_', ' ')}: {one['num_missed']} of {one['num_true']}"
            for name, one in lesions["by_size"].items()
            if one["num_true"]
        ]
        lines.append(f"{missed} ({'; '.join(sizes)}), and marked {lesions['num_false']} that are none.")
    else:
        lines.append(f"- No {part} patient has a tumour: nothing is known of what it finds.")
    if summary["worst_first"]:
        worst = summary["worst_first"][0]
        lines.append(
            f"- Its worst {part} patient has a mean Dice of {worst['composite_dice']:.3f} ({worst['case']})."
        )
    return lines


def _provenance(card: Card) -> str:
    lines = ["## Where it comes from\n", f"- MLflow run `{card.description.get('run_id')}`"]
    lines.append(f"- code: `{card.commit or 'unknown'}`")
    lines.append(f"- environment: {', '.join(f'`{one}`' for one in card.requirements)}")
    return "\n".join(lines)


def _shown_part(card: Card) -> str | None:
    return next((part for part in ("test", "validation") if part in card.summaries), None)


def _interval(values: Mapping[str, float]) -> str:
    if math.isnan(values["mean"]):
        return "–"
    if math.isnan(values["ci_low"]):
        return f"{values['mean']:.3f}"
    return f"{values['mean']:.3f} [{values['ci_low']:.3f}, {values['ci_high']:.3f}]"
