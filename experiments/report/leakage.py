"""What a validation score is worth when the slices of one patient lie on both sides of the split.

Patients are drawn into two groups, and each patient's slices into two halves. One network is trained on the first
halves of group A, another on the first halves of group B. The second halves are what a split of shuffled slices would
validate on: their patients are known to the one network and new to the other. So each patient is scored twice on the
very same slices, and the difference is the leak and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from readings import DICE
from slice_sets import chosen, slices_of
from small_training import course, describe_sizes, read, small_settings, train
from steps import Preparation

from kits_ml.evaluation.aggregates import summarise_values
from kits_ml.training.batches import SliceArrays

GROUPS = ("A", "B")


def crossed_groups(cases: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Draws groups and halves.

    Args:
        cases: the case of each slice, in runs.
        seed: of the drawing.

    Returns:
        `train`: by group, positions of the slices to train on; a patient with one slice has no second half, and is in
        the training of both groups. `held`: positions of all second halves. `group_of`: by case of several slices.
    """
    rng = np.random.default_rng(seed)
    positions: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        positions.setdefault(case, []).append(number)
    several = [case for case, own in positions.items() if len(own) > 1]
    single = [own[0] for own in positions.values() if len(own) == 1]
    drawn = rng.permutation(len(several))
    group_of = {several[index]: GROUPS[place % 2] for place, index in enumerate(drawn)}
    train_on: dict[str, list[int]] = {group: list(single) for group in GROUPS}
    held: list[int] = []
    for case in several:
        own = rng.permutation(positions[case])
        half = len(own) // 2
        train_on[group_of[case]] += own[:half].tolist()
        held += own[half:].tolist()
    return {"train": train_on, "held": held, "group_of": group_of}


def measure_leak(
    folder: Path, *, cache: Path, size: Mapping[str, Any], num_threads: int, seed: int
) -> dict[str, Any]:
    """Trains the two networks and scores each on the second halves of both groups.

    Args:
        folder: of cases.
        cache: see `slices_of`.
        size: of network, images and budget.
        num_threads: of the network.
        seed: of groups and halves.

    Returns:
        Of each Dice: `shuffled`, the mean over patients that the network knows by other slices, `new`, over the
        same patients when it does not know them, and `leak`, the mean of the differences; each with its interval, and
        of the patients whose slices show the region.
    """
    slices = slices_of(folder, cache=cache, image_size=size["image_size"], preparations={"right": Preparation()})[
        "right"
    ]
    drawn = crossed_groups(slices.cases, seed=seed)
    settings = small_settings(size, loss="dice_crossentropy", num_threads=num_threads)
    runs: dict[str, Any] = {}
    for group in GROUPS:
        known = chosen(slices, _of_group(slices, drawn, group))
        new = chosen(slices, _of_group(slices, drawn, next(one for one in GROUPS if one != group)))
        train_slices = chosen(slices, drawn["train"][group])
        trained = train(train_slices, known, settings)
        trained.model.set_weights(trained.last)
        said = {
            name: read(trained.model, some, batch_size=settings.batch_size)
            for name, some in (("shuffled", known), ("new", new))
        }
        runs[group] = {
            "course": course(trained),
            "minutes": trained.minutes,
            **{name: dice for name, (dice, _) in said.items()},
            "as_reported": {name: reported for name, (_, reported) in said.items()},
            "sizes": describe_sizes(train_slices, known, settings),
        }
    return {"runs": runs, **summarise_leak(runs)}


def summarise_leak(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs each patient's two scores; see `measure_leak`."""
    known = {case: one for run in runs.values() for case, one in run["shuffled"].items()}
    new = {case: one for run in runs.values() for case, one in run["new"].items()}
    cases = sorted(set(known) & set(new))
    found: dict[str, Any] = {"num_cases": len(cases)}
    for name in DICE:
        pairs = [(known[case][name], new[case][name]) for case in cases]
        found[name] = {
            "shuffled": summarise_values([one for one, _ in pairs]),
            "new": summarise_values([other for _, other in pairs]),
            "leak": summarise_values([one - other for one, other in pairs]),
            "pairs": pairs,
        }
    return found


def _of_group(slices: SliceArrays, drawn: Mapping[str, Any], group: str) -> list[int]:
    return [number for number in drawn["held"] if drawn["group_of"][slices.cases[number]] == group]
