"""Which post-processing helps a model, shown on validation patients: what is not shown stays off.

Each candidate is held against the same label maps without it, patient by patient. It helps where, with `FEW_PATIENTS`
patients or more, even the lower end of the bootstrap interval of the mean difference in composite Dice is above 0 and
p of `sign_flips` is below 5 %, the interval widened and p multiplied for the number of candidates of the round
(Bonferroni). The interval alone is too sure where few patients change: with 5 of 10 better and the rest as they were
it lies above 0, and yet as large a mean comes of 2 of the 32 flips of five signs. The best one that helps is taken,
and the others are tried again on top of it, until none helps. The correction is for one round; the chance of a step
too many adds up over the rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml.config import PostprocessingSettings
from kits_ml.data import volumes
from kits_ml.data.cases import Case, check_same_grid
from kits_ml.evaluation.aggregates import CONFIDENCE, NUM_RESAMPLES, bootstrap_interval
from kits_ml.evaluation.comparison.significance import sign_flips
from kits_ml.evaluation.comparison.verdict import FEW_PATIENTS
from kits_ml.inference.postprocessing import postprocess
from kits_ml.scores import composite_dice, score_case

#: What is tried of each setting.
CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "fill_holes": ("volume", "slices"),
    "minimum_kidney_ml": (1.0, 5.0, 20.0),
    "keep_largest_kidneys": (2,),
    "tumour_contact_mm": (0.0, 5.0, 10.0),
    "minimum_tumour_ml": (0.05, 0.2, 0.5, 1.0),
}

#: Dice of both regions, and their mean, which decides.
METRICS = ("composite_dice", "dice_kidney", "dice_tumour")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a candidate changes.

    Attributes:
        option, value: the setting, and what it is set to.
        metric: one of `METRICS`.
        mean_difference: over patients, with the candidate minus without.
        low, high: its bootstrap interval.
        family_low, family_high: the same, for all candidates of the round together.
        family_p: two-sided p of `sign_flips`, for all candidates of the round together; at most 1.
        num_better, num_worse, num_cases: patients.
    """

    option: str
    value: Any
    metric: str
    mean_difference: float
    low: float
    high: float
    family_low: float
    family_high: float
    family_p: float
    num_better: int
    num_worse: int
    num_cases: int

    @property
    def helps(self) -> bool:
        """Whether it is shown to make this metric better."""
        return self.num_cases >= FEW_PATIENTS and self.family_low > 0 and self.family_p < 1 - CONFIDENCE


def candidates(current: PostprocessingSettings) -> list[PostprocessingSettings]:
    """The settings to try: those that are there, and one more that is still off."""
    return [
        dataclasses.replace(current, **{option: value})
        for option, values in CANDIDATES.items()
        if getattr(current, option) == getattr(PostprocessingSettings(), option)
        for value in values
    ]


def score_with(case: Case, *, prediction: Path, settings: Sequence[PostprocessingSettings]) -> list[dict[str, float]]:
    """Scores the label map of one case under several settings.

    Args:
        case: with its reference.
        prediction: the label map as the network left it.
        settings: how to clean it.

    Returns:
        `METRICS` by name, for each of the settings.

    Raises:
        InputError: a file that cannot be used, or another grid.
    """
    true = volumes.read_label_map(case.labels_path, mapping=case.label_values)
    pred = volumes.read_label_map(prediction)
    check_same_grid(true, pred)
    return [_score(true, postprocess(pred.array, spacing_mm=true.spacing_mm, settings=one)) for one in settings]


def effects(
    before: Sequence[Mapping[str, float]],
    after: Sequence[Sequence[Mapping[str, float]]],
    tried: Sequence[tuple[str, Any]],
    *,
    seed: int = 0,
) -> list[Effect]:
    """What each candidate of a round changes, in each metric.

    Args:
        before: scores by metric, for each patient.
        after: for each candidate the same.
        tried: option and value of each candidate.
        seed: of the bootstrap, and of the signs where too many patients differ to go through all.
    """
    found = []
    for (option, value), scores in zip(tried, after, strict=True):
        for metric in METRICS:
            changes = np.array([new[metric] - old[metric] for new, old in zip(scores, before, strict=True)])
            changes = np.round(changes, 12)  # equal scores are no change
            low, high = bootstrap_interval(changes, seed=seed)
            widened = 1 - (1 - CONFIDENCE) / len(tried)
            family_low, family_high = bootstrap_interval(changes, seed=seed, confidence=widened)
            p_value = sign_flips(changes, num_resamples=NUM_RESAMPLES, seed=seed)
            found.append(
                Effect(
                    option=option,
                    value=value,
                    metric=metric,
                    mean_difference=float(changes.mean()),
                    low=low,
                    high=high,
                    family_low=family_low,
                    family_high=family_high,
                    family_p=min(1.0, p_value * len(tried)),
                    num_better=int((changes > 0).sum()),
                    num_worse=int((changes < 0).sum()),
                    num_cases=len(changes),
                )
            )
    return found


def best_of(found: Sequence[Effect]) -> Effect | None:
    """The candidate that helps most in the deciding metric; the first of equal ones, None where none helps."""
    helping = [one for one in found if one.metric == METRICS[0] and one.helps]
    return max(helping, key=lambda one: one.mean_difference) if helping else None


def changed_option(before: PostprocessingSettings, after: PostprocessingSettings) -> tuple[str, Any]:
    """The one setting in which two differ, and its new value."""
    ((option, value),) = [item for item in after.to_dict().items() if item[1] != getattr(before, item[0])]
    return option, value


def _score(true: volumes.Volume, label_map: np.ndarray) -> dict[str, float]:
    regions = score_case(true.array, label_map, spacing_mm=true.spacing_mm, surfaces=False)
    return {
        "composite_dice": composite_dice(regions),
        "dice_kidney": regions["kidney"].dice,
        "dice_tumour": regions["tumour"].dice,
    }
