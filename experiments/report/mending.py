"""The same small training with one fault after the other mended, and what each metric says of it.

Every network is scored on the same held-out patients, whose labels are right; their images are prepared as the
network's own were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from readings import DICE
from slice_sets import chosen, of_cases, slices_of
from small_training import Trained, course, describe_sizes, read, small_settings, train
from steps import PREPARATIONS, Step

from kits_ml.evaluation.aggregates import summarise_values
from kits_ml.training.batches import SliceArrays


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which patients train, choose, and are only scored at the end."""

    train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> Parts:
        """From a split file of this package."""
        content = json.loads(path.read_text())
        return cls(**{part: tuple(content[part]) for part in ("train", "validation", "test")})

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Parts:
        """A third for the test, an eighth of the rest chooses; for cases that were drawn at random anyway."""
        names = sorted(names)
        num_test = max(1, len(names) // 3)
        rest = names[:-num_test]
        num_validation = max(1, len(rest) // 8)
        return cls(train=rest[:-num_validation], validation=rest[-num_validation:], test=names[-num_test:])


def train_step(
    step: Step,
    folder: Path,
    parts: Parts,
    *,
    cache: Path,
    size: Mapping[str, Any],
    num_threads: int,
) -> dict[str, Any]:
    """Trains a step and scores its last and its best weights on the held-out patients.

    Args:
        step: one of `TRAINED_STEPS`.
        folder: of cases.
        parts: of the patients.
        cache: see `slices_of`.
        size: of network, images and budget.
        num_threads: of the network.

    Returns:
        `last` and `best`: what is said of these weights; the `course` of the training and its sizes.
    """
    made = slices_of(folder, cache=cache, image_size=size["image_size"], preparations=PREPARATIONS)
    own, right = made[step.preparation], made["right"]
    settings = small_settings(size, num_threads=num_threads, **step.changes)
    train_slices, validation = split_slices(own, parts, by_patient=step.by_patient, seed=settings.seed)
    test = of_cases(SliceArrays(grey=own.grey, labels=right.labels, cases=own.cases), parts.test)
    trained = train(train_slices, validation, settings)
    best = trained.model.get_weights()
    said = {}
    for name, weights in (("best", best), ("last", trained.last)):
        trained.model.set_weights(weights)
        said[name] = _say(trained, validation, test, batch_size=settings.batch_size)
    return {
        **said,
        "best_epoch": trained.best_epoch,
        "minutes": trained.minutes,
        "course": course(trained),
        "sizes": describe_sizes(train_slices, validation, settings) | {"num_test": len(parts.test)},
    }


def split_slices(
    slices: SliceArrays, parts: Parts, *, by_patient: bool, seed: int
) -> tuple[SliceArrays, SliceArrays]:
    """Slices to train on and slices to validate on, as many of each either way; none of a test patient.

    Args:
        slices: of all patients.
        parts: of the patients.
        by_patient: as the parts say; else the same number of slices is drawn from both parts together.
        seed: of the drawing.
    """
    if by_patient:
        return of_cases(slices, parts.train), of_cases(slices, parts.validation)
    wanted = {*parts.train, *parts.validation}
    positions = [number for number, case in enumerate(slices.cases) if case in wanted]
    num_validation = len(of_cases(slices, parts.validation))
    drawn = np.random.default_rng(seed).permutation(positions)
    return chosen(slices, drawn[num_validation:]), chosen(slices, drawn[:num_validation])


def _say(trained: Trained, validation: SliceArrays, test: SliceArrays, *, batch_size: int) -> dict[str, Any]:
    per_case, _ = read(trained.model, test, batch_size=batch_size)
    _, reported = read(trained.model, validation, batch_size=batch_size)
    return {
        "as_reported": reported,
        "test": {name: summarise_values([one[name] for one in per_case.values()]) for name in DICE},
        "test_by_case": per_case,
    }
