"""Learning-rate schedules: pure functions of how much of the training's budget is used up.

Each takes a progress in [0, 1] and gives the share of the highest learning rate, in [0, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from kits_ml.config import TrainSettings

Schedule = Callable[[float], float]

#: Where the warm-up begins: not at zero, so that the first update is not lost.
WARMUP_START = 0.01
#: PyTorch's OneCycleLR: starts at a 25th of the highest learning rate, ends at a 10,000th of that.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
ONE_CYCLE_WARMUP = 0.3


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def polynomial(progress: float, *, power: float) -> float:
    """`(1 - progress) ** power`, from 1 to 0; nnU-Net's with power 0.9 (Isensee et al. 2021, arXiv:1904.08128)."""
    return (1 - progress) ** power


def one_cycle(progress: float, *, warmup_fraction: float) -> float:
    """Up and down in half cosines (Smith 2018, arXiv:1803.09820), as PyTorch's OneCycleLR.

    The momentum stays as it is.

    Args:
        progress: in [0, 1].
        warmup_fraction: where the highest learning rate is reached; 0: at once.
    """
    if progress < warmup_fraction:
        return 1 - (1 - ONE_CYCLE_START) * cosine(progress / warmup_fraction)
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * cosine((progress - warmup_fraction) / (1 - warmup_fraction))


def with_warmup(progress: float, *, schedule: Schedule, warmup_fraction: float) -> float:
    """A straight line from `WARMUP_START` to 1 over a share of the budget, then the whole schedule over the rest."""
    if progress < warmup_fraction:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup_fraction
    return schedule((progress - warmup_fraction) / (1 - warmup_fraction))


def make_schedule(settings: TrainSettings) -> Schedule:
    """The learning rate by progress, as the settings ask for it."""
    factor = _factor(settings)
    return lambda progress: settings.learning_rate * factor(progress)


def _factor(settings: TrainSettings) -> Schedule:
    given = settings.warmup_fraction
    if settings.learning_rate_schedule == "one_cycle":
        return functools.partial(one_cycle, warmup_fraction=ONE_CYCLE_WARMUP if given is None else given)
    schedule = SCHEDULES[settings.learning_rate_schedule]
    if settings.learning_rate_schedule == "polynomial":
        schedule = functools.partial(polynomial, power=settings.polynomial_power)
    return functools.partial(with_warmup, schedule=schedule, warmup_fraction=given or 0.0)


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
}
