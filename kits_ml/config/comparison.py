"""What is compared, by which rules, and what counts as a difference: fixed before the scores are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import REQUIRED, Settings, setting
from kits_ml.trust import require_trustworthy


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """Compare algorithms on the same patients, and say no more than the numbers carry."""

    scores: str = setting(
        REQUIRED,
        "what to compare, with commas or spaces between: NAME=scores.csv, NAME=runs:/ID, runs:/ID (a run, or the one "
        "above several), or any table of case, algorithm, score (and seed, fold, region, metric); a NAME that comes "
        "again is another seed of the same",
    )
    control: str = setting("unet", "the algorithm that all others are held against")
    region: Literal["both", "kidney", "tumour"] = setting("both", "both: the mean of the two, as KiTS19 ranks")
    metric: str = setting("dice", "what is compared: a column of scores.csv, or a value of a table's metric column")
    better: Literal["higher", "lower"] | None = setting(
        None, "which scores are better; without one, lower for distances and higher for all else"
    )
    part: Literal["test", "validation"] = setting("test", "which cases of a run")
    test: Literal["wilcoxon", "permutation"] = setting(
        "wilcoxon", "what decides: signed ranks (Pratt's zeros), or the mean under flipped signs"
    )
    equivalence_margin: float = setting(
        0.01, "differences of the mean up to here count as none, in the metric's unit; 0.01 suits overlap scores"
    )
    confidence: float = setting(0.95, "of intervals; tests have one minus this as alpha", minimum=0.5, maximum=0.999)
    power: float = setting(0.8, "at which numbers of patients are told", minimum=0.5, maximum=0.99)
    num_bootstrap: int = setting(10_000, "how often patients are drawn again", minimum=100, maximum=1_000_000)
    seed: int = setting(0, "of the drawing", minimum=0)
    on_mismatch: Literal["refuse", "intersect"] = setting(
        "refuse", "when algorithms have other patients or runs: stop, or go on with those that all have"
    )
    costs: str | None = setting(
        None, "table of algorithm, num_parameters, gflops, training_minutes, prediction_seconds; wins over the runs'"
    )
    output: str = setting("comparison", "folder that gets the page, the tables and the pictures")
    overwrite: bool = setting(False, "replace the output folder's files")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_trustworthy(self.metric, use="compare")
        if not self.equivalence_margin > 0:
            raise InputError(f"equivalence_margin: found {self.equivalence_margin}, expected more than 0")
