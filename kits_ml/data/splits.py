"""Dividing patients into training, validation and test; a slice always goes where its patient goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from kits_ml.config import SplitSettings
from kits_ml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case names of each part, sorted; no case is in two.

    Attributes:
        train: cases whose slices the weights are fitted to.
        validation: cases that choose among weights and settings.
        test: cases that are scored once, at the end.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        parts = (set(self.train), set(self.validation), set(self.test))
        shared = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
        if shared:
            raise InputError(f"split: cases in more than one part: {', '.join(sorted(shared))}")

    def to_dict(self) -> dict[str, list[str]]:
        return {part: list(names) for part, names in asdict(self).items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, list[str]]) -> Split:
        return cls(**{part: tuple(names) for part, names in parts.items()})


def split_patients(has_tumour: Mapping[str, bool], settings: SplitSettings) -> Split:
    """Splits patients at random, with the same share of tumour cases in each part as far as whole cases allow.

    Args:
        has_tumour: by case name, whether the case shows a tumour.
        settings: fractions and seed. A fraction above zero gets at least one case.

    Raises:
        InputError: too few patients for the parts that are asked for.
    """
    num_validation = _share(settings.validation_fraction, len(has_tumour))
    num_test = _share(settings.test_fraction, len(has_tumour))
    if len(has_tumour) - num_validation - num_test < 1:
        raise InputError(
            f"split: {len(has_tumour)} patients are too few for validation_fraction "
            f"{settings.validation_fraction:g} and test_fraction {settings.test_fraction:g}; expected at least "
            f"{num_validation + num_test + 1}"
        )
    order = _interleave(has_tumour, np.random.default_rng(settings.split_seed))
    test, rest = _take_evenly(order, num_test)
    validation, train = _take_evenly(rest, num_validation)
    return Split(train=tuple(sorted(train)), validation=tuple(sorted(validation)), test=tuple(sorted(test)))


def _share(fraction: float, num_cases: int) -> int:
    return max(1, round(fraction * num_cases)) if fraction > 0 else 0


def _interleave(has_tumour: Mapping[str, bool], rng: np.random.Generator) -> list[str]:
    """Shuffles within each stratum and lays the strata one after the other."""
    order: list[str] = []
    for stratum in (True, False):
        names = sorted(name for name, shows in has_tumour.items() if shows is stratum)
        order += [names[index] for index in rng.permutation(len(names))]
    return order


def _take_evenly(order: list[str], num_taken: int) -> tuple[list[str], list[str]]:
    """Takes names at even distances along the order, and so from each stratum in proportion."""
    taken = {int((index + 0.5) * len(order) / num_taken) for index in range(num_taken)}
    return (
        [name for index, name in enumerate(order) if index in taken],
        [name for index, name in enumerate(order) if index not in taken],
    )
