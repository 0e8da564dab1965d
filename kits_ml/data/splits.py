"""Dividing patients into training, validation and test; cases and slices always go where their patient goes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kits_ml.config import SplitSettings
from kits_ml.data import split_files
from kits_ml.data.patients import cases_by_patient
from kits_ml.errors import InputError

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")

#: Patients with a tumour are ranked by its volume and cut into at most this many strata of equal size,
MAX_TUMOUR_STRATA = 4
#: each with at least this many patients, so that there is something left to draw.
MIN_STRATUM = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case names of each part, sorted; no patient is in two.

    Attributes:
        train: cases whose slices the weights are fitted to.
        validation: cases that choose among weights and settings.
        test: cases that are scored once, at the end.
        patients: patient by case; a case that is not in it is a patient of its own, by its own name.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    patients: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen: dict[str, tuple[str, str]] = {}
        for part in PARTS:
            for case in getattr(self, part):
                other, other_part = seen.setdefault(self.patients.get(case, case), (case, part))
                if other_part != part and other == case:
                    raise InputError(f"split: {case} is in {other_part} and in {part}; expected one part a case")
                if other_part != part:
                    raise InputError(
                        f"split: {other} ({other_part}) and {case} ({part}) are of one patient; "
                        "expected all cases of a patient in one part"
                    )

    def to_dict(self) -> dict[str, list[str]]:
        """The case names of each part."""
        return {part: list(getattr(self, part)) for part in PARTS}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Sequence[str]], *, patients: Mapping[str, str] | None = None) -> Split:
        """Makes a split from case names by part; other entries are passed over, a missing part is empty."""
        return cls(**{part: tuple(sorted(parts.get(part, ()))) for part in PARTS}, patients=patients or {})


def describe(split: Split, settings: SplitSettings) -> dict[str, Any]:
    """What a file should say of a split: settings, patients of several cases, parts. `split_file` takes it again."""
    several = {name: list(cases) for name, cases in cases_by_patient(split.patients).items() if len(cases) > 1}
    return {"settings": settings.to_dict(), "patients": several, **split.to_dict()}


def split_patients(
    tumour_ml: Mapping[str, float],
    settings: SplitSettings,
    *,
    patients: Mapping[str, str] | None = None,
    held_out: Collection[str] = (),
    unusable: Collection[str] = (),
) -> Split:
    """Splits patients: by fixed lists, into folds, or at random; the latter two with like tumour sizes in each part.

    The test part is drawn first, from the seed alone: it is the same for every fold and every number of folds.

    Args:
        tumour_ml: tumour volume in millilitres by case; 0 for none. A patient counts with the largest.
        settings: fractions or folds, seed, fixed lists. A fraction above zero gets at least one patient. With fixed
            lists, cases that are not listed are in no part, and a line says so.
        patients: patient by case, see `patients.find_patients`; without it, each case is a patient.
        held_out: cases that their folder holds apart for testing. If there are any, they and nothing else are the
            test part, whatever `test_fraction` says.
        unusable: cases that the data hold but that cannot be used; fixed lists may name them.

    Raises:
        InputError: too few patients for what is asked for, a bad file, or lists that separate a patient.
    """
    patients = {case: (patients or {}).get(case, case) for case in tumour_ml}
    held_out = set(held_out) & set(tumour_ml)
    if settings.split_file:
        parts = _fixed(tumour_ml, settings, held_out=held_out, unusable=unusable)
    else:
        parts = _drawn(tumour_ml, settings, patients=patients, held_out=held_out)
    return Split.from_dict(parts, patients=patients)


def all_folds(tumour_ml: Mapping[str, float], settings: SplitSettings, **options) -> list[Split]:
    """The split of every fold, in order; one split where the settings name no folds.

    Args:
        tumour_ml, settings, options: as for `split_patients`; the `fold` of the settings is passed over.
    """
    num_folds = settings.num_folds or 1
    if settings.split_file:
        num_folds = len(split_files.read_split_file(settings.split_file))
    if num_folds == 1:
        return [split_patients(tumour_ml, settings, **options)]
    return [
        split_patients(tumour_ml, dataclasses.replace(settings, fold=fold), **options) for fold in range(num_folds)
    ]


def _fixed(
    cases: Collection[str], settings: SplitSettings, *, held_out: Collection[str], unusable: Collection[str]
) -> dict[str, list[str]]:
    path = settings.split_file
    listed = split_files.choose_fold(split_files.read_split_file(path), settings.fold, path=path)
    split_files.check_known(listed, {*cases, *unusable}, path=path)
    parts = {part: [name for name in names if name in cases] for part, names in listed.items()}
    misused = sorted(set(held_out) & {*parts["train"], *parts["validation"]})
    if misused:
        raise InputError(
            f"{path}: {', '.join(misused[:5])} lie among the test cases; expected them in test or nowhere"
        )
    parts["test"] = sorted({*parts["test"], *held_out})
    if not parts["train"]:
        raise InputError(f"{path}: no usable case for training; expected at least one")
    left_out = sorted(set(cases) - {name for names in parts.values() for name in names})
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        log.info("%s: %d of %d cases are not listed and are left out: %s", path, len(left_out), len(cases), shown)
    return parts


def _drawn(
    tumour_ml: Mapping[str, float],
    settings: SplitSettings,
    *,
    patients: Mapping[str, str],
    held_out: Collection[str],
) -> dict[str, list[str]]:
    members = cases_by_patient(patients)
    apart = [patient for patient, cases in members.items() if set(cases) & set(held_out)]
    for patient in apart:
        if not set(members[patient]) <= set(held_out):
            raise InputError(
                f"split: {', '.join(members[patient])} are of one patient, but only "
                f"{', '.join(sorted(set(members[patient]) & set(held_out)))} lie among the test cases; "
                "expected all or none of them there"
            )
    largest = {
        patient: max(tumour_ml[case] for case in cases) for patient, cases in members.items() if patient not in apart
    }
    num_test = 0 if apart else _share(settings.test_fraction, len(largest))
    num_validation = settings.num_folds or _share(settings.validation_fraction, len(largest))
    needed = num_test + max(num_validation + (settings.num_folds == 0), 1)
    if len(largest) < needed:
        wanted = (
            f"num_folds {settings.num_folds}"
            if settings.num_folds
            else f"validation_fraction {settings.validation_fraction:g}"
        )
        raise InputError(
            f"split: {len(largest)} patients are too few for {wanted} and test_fraction "
            f"{settings.test_fraction:g}; expected at least {needed}"
        )
    order = _order(largest, np.random.default_rng(settings.split_seed))
    test, rest = _take_evenly(order, num_test)
    if settings.num_folds:
        validation = rest[settings.fold :: settings.num_folds]
        train = [patient for patient in rest if patient not in set(validation)]
    else:
        validation, train = _take_evenly(rest, num_validation)
    chosen = {"train": train, "validation": validation, "test": test + apart}
    return {part: [case for patient in names for case in members[patient]] for part, names in chosen.items()}


def _share(fraction: float, num_patients: int) -> int:
    return max(1, round(fraction * num_patients)) if fraction > 0 else 0


def _order(tumour_ml: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """Shuffles within each stratum and lays the strata one after the other: largest tumours first, none last."""
    with_tumour = sorted(
        (name for name in tumour_ml if tumour_ml[name] > 0), key=lambda name: (-tumour_ml[name], name)
    )
    without = sorted(name for name in tumour_ml if not tumour_ml[name] > 0)
    num_strata = max(1, min(MAX_TUMOUR_STRATA, len(with_tumour) // MIN_STRATUM))
    order: list[str] = []
    for ranks in (*np.array_split(np.arange(len(with_tumour)), num_strata), None):
        names = without if ranks is None else [with_tumour[rank] for rank in ranks]
        order += [names[index] for index in rng.permutation(len(names))]
    return order


def _take_evenly(order: list[str], num_taken: int) -> tuple[list[str], list[str]]:
    """Takes names at even distances along the order, and so from each stratum in proportion."""
    taken = {int((index + 0.5) * len(order) / num_taken) for index in range(num_taken)}
    return (
        [name for index, name in enumerate(order) if index in taken],
        [name for index, name in enumerate(order) if index not in taken],
    )
