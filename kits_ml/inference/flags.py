"""What makes a prediction worth a second look, one rule a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kits_ml.config import QualitySettings
from kits_ml.data import training_range
from kits_ml.data.contrast import CONTRAST_CLASSES, contrast_class
from kits_ml.data.training_range import Outside
from kits_ml.inference.measurements import Kidney, Measurements


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something to look at.

    Attributes:
        name: of the rule, a key of `FLAGS`.
        severity: `error` where the prediction cannot be used as it is, `warning` where somebody should look.
        reason: one sentence with the numbers.
    """

    name: str
    severity: Literal["warning", "error"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules look at.

    Attributes:
        measured: kidneys, tumours and fragments.
        volumes_ml: of the scored regions, `kidney` (tumour included) and `tumour`.
        kidney_hu: mean HU of all kidney tissue without tumour; NaN without any.
        hu: percentiles of the scan by name, see `training_range`.
        spacing_mm, field_of_view_mm: along slices, rows and columns.
        training: what the model's description says of its training data; empty if nothing.
        settings: the limits.
    """

    measured: Measurements
    volumes_ml: Mapping[str, float]
    kidney_hu: float
    hu: Mapping[str, float]
    spacing_mm: Sequence[float]
    field_of_view_mm: Sequence[float]
    training: Mapping[str, Any]
    settings: QualitySettings

    @property
    def kidneys(self) -> tuple[Kidney, ...]:
        return self.measured.kidneys


@dataclass(frozen=True, kw_only=True)
class Unchecked:
    """A rule that did not run, or not for each model of an ensemble: it raised no flag for want of knowledge.

    Attributes:
        name: of the rule, a key of `FLAGS`.
        reason: one sentence, what is not known.
    """

    name: str
    reason: str


Rule = Callable[[Facts], Iterator[str]]


def raise_flags(facts: Facts) -> tuple[Flag, ...]:
    """All flags that the facts raise, errors first, else in the order of `FLAGS`."""
    raised = [
        Flag(name=name, severity=severity, reason=reason)
        for name, (severity, rule) in FLAGS.items()
        for reason in rule(facts)
    ]
    return tuple(sorted(raised, key=lambda flag: flag.severity != "error"))


def not_checked(facts: Facts) -> tuple[Unchecked, ...]:
    """The rules that lacked something to go by, so that nobody takes their silence for a finding."""
    untold = (
        Unchecked(name=name, reason=reason)
        for key, (name, what) in _TRAINED.items()
        for reason in _untold(facts.training, key, what)
    )
    return (*untold, *_without_kidneys(facts), *_without_confidence(facts))


def _untold(training: Mapping[str, Any], key: str, what: str) -> Iterator[str]:
    num_models, num_silent = training.get("num_models", 1), training.get("num_silent", {}).get(key, 0)
    if not training.get(key):
        whom = "the model was" if num_models == 1 else f"any of the {num_models} models was"
    elif num_silent:
        whom = f"{num_silent} of the {num_models} models {'was' if num_silent == 1 else 'were'}"
    else:
        return
    yield f"It is not known on what {what} {whom} trained."


def _without_kidneys(facts: Facts) -> Iterator[Unchecked]:
    if not facts.kidneys:
        yield Unchecked(name="non_contrast", reason="No kidney was found whose HU would tell of contrast agent.")
        if facts.training.get("kidney_hu"):
            yield Unchecked(name="hu_outside_training", reason="No kidney was found whose HU could be compared.")


def _without_confidence(facts: Facts) -> Iterator[Unchecked]:
    if any(one.confidence is None for one in (*facts.kidneys, *facts.measured.tumours)):
        yield Unchecked(name="low_confidence", reason="It is not known how sure the model was.")


def _no_kidney(facts: Facts) -> Iterator[str]:
    if facts.kidneys:
        return
    least = f"a piece with at least {facts.settings.fragment_kidney_ml:g} ml of its tissue"
    if not facts.volumes_ml["kidney"]:
        yield "Nothing was found: neither kidney nor tumour."
    else:
        fragments = sum(one.volume_ml for one in facts.measured.fragments if one.label == "kidney")
        tumour_ml = facts.volumes_ml["tumour"]
        yield f"No kidney was found, expected {least}; there are {fragments:.1f} ml of kidney in fragments and " + (
            f"{tumour_ml:.1f} ml of tumour." if tumour_ml else "no tumour."
        )


def _one_kidney(facts: Facts) -> Iterator[str]:
    if len(facts.kidneys) == 1 and facts.kidneys[0].side != "both":
        (kidney,) = facts.kidneys
        yield (
            f"Only the {kidney.side} kidney was found ({kidney.volume_ml:.0f} ml), expected two; one may be missed, "
            "removed or outside the scan."
        )


def _more_than_two_kidneys(facts: Facts) -> Iterator[str]:
    if len(facts.kidneys) > 2:
        volumes = ", ".join(f"{one.volume_ml:.0f}" for one in facts.kidneys)
        yield f"{len(facts.kidneys)} separate kidneys were found ({volumes} ml), expected two."


def _kidneys_joined(facts: Facts) -> Iterator[str]:
    for kidney in facts.kidneys:
        if kidney.side == "both":
            yield (
                f"A connected piece of {kidney.volume_ml:.0f} ml lies on both sides of the body's middle, expected a "
                "kidney on each; a horseshoe kidney, or two that were joined."
            )


def _kidneys_on_one_side(facts: Facts) -> Iterator[str]:
    sides = [one.side for one in facts.kidneys]
    if len(sides) == 2 and sides[0] == sides[1]:
        yield f"Both kidneys lie on the {sides[0]} side of the body, expected one on each side."


def _implausible_kidney_volume(facts: Facts) -> Iterator[str]:
    low, high = facts.settings.lowest_kidney_ml, facts.settings.highest_kidney_ml
    for kidney in facts.kidneys:
        if kidney.side == "both":
            continue  # two in one
        tissue_ml = kidney.volume_ml - kidney.tumour_ml
        if kidney.volume_ml < low:
            yield f"The {_named(kidney)} measures {kidney.volume_ml:.0f} ml, expected at least {low:g} ml."
        if tissue_ml > high:
            yield (
                f"The {_named(kidney)} measures {tissue_ml:.0f} ml without its tumour, expected at most {high:g} ml."
            )


def _implausible_tumour_volume(facts: Facts) -> Iterator[str]:
    high = facts.settings.highest_tumour_ml
    for number, tumour in enumerate(facts.measured.tumours, start=1):
        if tumour.volume_ml > high:
            yield f"Tumour {number} measures {tumour.volume_ml:.0f} ml, expected at most {high:g} ml."


def _tumour_without_contact(facts: Facts) -> Iterator[str]:
    for number, tumour in enumerate(facts.measured.tumours, start=1):
        if tumour.kidney is None:
            yield (
                f"Tumour {number} ({tumour.volume_ml:.1f} ml, slice {tumour.centre[0]}) touches no kidney, expected "
                "a kidney tumour to do so."
            )


def _kidney_cut_off(facts: Facts) -> Iterator[str]:
    for kidney in facts.kidneys:
        if kidney.at_end:
            yield (
                f"The {_named(kidney)} reaches the scan's first or last slice, so the scan may cut it off: its "
                f"{kidney.volume_ml:.0f} ml may be too little."
            )


def _non_contrast(facts: Facts) -> Iterator[str]:
    if facts.kidneys and contrast_class(facts.kidney_hu) == "unenhanced":
        yield (
            f"The kidneys have {facts.kidney_hu:.0f} HU on average, expected more than "
            f"{CONTRAST_CLASSES['unenhanced']:g} HU: a scan without contrast agent, in which tumours hardly show."
        )


def _low_confidence(facts: Facts) -> Iterator[str]:
    limits = facts.settings
    for kidney in facts.kidneys:
        if kidney.confidence is not None and kidney.confidence < limits.lowest_kidney_confidence:
            yield _doubt(f"the {_named(kidney)}", kidney.confidence, limits.lowest_kidney_confidence)
    for number, tumour in enumerate(facts.measured.tumours, start=1):
        if tumour.confidence is not None and tumour.confidence < limits.lowest_tumour_confidence:
            yield _doubt(f"tumour {number}", tumour.confidence, limits.lowest_tumour_confidence)


def _spacing_outside_training(facts: Facts) -> Iterator[str]:
    if trained := facts.training.get("spacing_mm"):
        for one in training_range.outside_lengths(facts.spacing_mm, trained, margin=facts.settings.training_margin):
            yield f"The {one.what} are {one.found:.2f} mm apart, {_trained(one, facts, 'spacing_mm', '.2f', 'mm')}."


def _field_of_view_outside_training(facts: Facts) -> Iterator[str]:
    if trained := facts.training.get("field_of_view_mm"):
        for one in training_range.outside_lengths(
            facts.field_of_view_mm, trained, margin=facts.settings.training_margin
        ):
            yield f"The {one.what} cover {one.found:.0f} mm, {_trained(one, facts, 'field_of_view_mm', '.0f', 'mm')}."


def _hu_outside_training(facts: Facts) -> Iterator[str]:
    margin_hu = facts.settings.training_margin_hu
    if trained := facts.training.get("hu"):
        for one in training_range.outside_hu(facts.hu, trained, margin_hu=margin_hu):
            percent = f"{training_range.PERCENTILES[one.what]:g}"
            yield (
                f"{percent} percent of the voxels lie at or below {one.found:.0f} HU, "
                f"{_trained(one, facts, 'hu', '.0f', 'HU')}; perhaps these are no HU."
            )
    trained = facts.training.get("kidney_hu")
    if trained and facts.kidneys:
        low, high = trained["low"], trained["high"]
        if not low - margin_hu <= facts.kidney_hu <= high + margin_hu:
            one = Outside(what="kidney", found=facts.kidney_hu, low=low, high=high)
            yield f"The kidneys have {one.found:.0f} HU on average, {_trained(one, facts, 'kidney_hu', '.0f', 'HU')}."


def _trained(one: Outside, facts: Facts, key: str, digits: str, unit: str) -> str:
    found = f"{one.low:{digits}} to {one.high:{digits}} {unit}"
    num_models = facts.training.get("num_models", 1)
    if num_models == 1:
        cases = f" in its {facts.training['num_cases']} training cases" if "num_cases" in facts.training else ""
        return f"but the model was trained on {found}{cases}"
    num_told = num_models - facts.training["num_silent"][key]
    whose = f"all {num_models}" if num_told == num_models else f"{num_told} of {num_models}"
    if one.low > one.high:
        return f"but the training data of {whose} models have no such value in common"
    return f"but the training data of {whose} models have only {found} in common"


def _named(kidney: Kidney) -> str:
    return "kidney on both sides" if kidney.side == "both" else f"{kidney.side} kidney"


def _doubt(what: str, confidence: float, limit: float) -> str:
    return f"The model gives {what} {confidence:.0%} on average, expected at least {limit:.0%}."


#: The ranges of the training data: the rule that needs each, and what it is of.
_TRAINED: Mapping[str, tuple[str, str]] = {
    "hu": ("hu_outside_training", "HU of whole scans"),
    "kidney_hu": ("hu_outside_training", "HU of kidneys"),
    "spacing_mm": ("spacing_outside_training", "spacings"),
    "field_of_view_mm": ("field_of_view_outside_training", "fields of view"),
}

#: Severity and rule by name, in the order in which flags are told.
FLAGS: Mapping[str, tuple[Literal["warning", "error"], Rule]] = {
    "no_kidney": ("error", _no_kidney),
    "hu_outside_training": ("warning", _hu_outside_training),
    "spacing_outside_training": ("warning", _spacing_outside_training),
    "field_of_view_outside_training": ("warning", _field_of_view_outside_training),
    "non_contrast": ("warning", _non_contrast),
    "one_kidney": ("warning", _one_kidney),
    "more_than_two_kidneys": ("warning", _more_than_two_kidneys),
    "kidneys_joined": ("warning", _kidneys_joined),
    "kidneys_on_one_side": ("warning", _kidneys_on_one_side),
    "kidney_cut_off": ("warning", _kidney_cut_off),
    "implausible_kidney_volume": ("warning", _implausible_kidney_volume),
    "implausible_tumour_volume": ("error", _implausible_tumour_volume),
    "tumour_without_contact": ("warning", _tumour_without_contact),
    "low_confidence": ("warning", _low_confidence),
}
