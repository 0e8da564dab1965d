"""Learning rates at given progress, by hand and beside PyTorch's schedulers."""

import dataclasses
import itertools

import pytest
import torch

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training.schedules import SCHEDULES, make_schedule, one_cycle, polynomial

SETTINGS = TrainSettings(learning_rate=0.1)


def _rates(*progress, **change):
    schedule = make_schedule(dataclasses.replace(SETTINGS, **change))
    return [schedule(one) for one in progress]


def _torch_rates(make, num_steps):
    """The learning rate before each step of a PyTorch scheduler, from 0.1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_default_falls_to_zero_as_a_cosine():
    # half a cosine: all at the start, half in the middle, nothing at the end
    assert _rates(0, 0.5, 1) == pytest.approx([0.1, 0.05, 0])


def test_the_constant_stays():
    assert _rates(0, 0.5, 1, learning_rate_schedule="constant") == [0.1, 0.1, 0.1]


def test_the_polynomial_is_nnunets():
    # (1 - 3/4) ** 1 = 1/4 and (1 - 3/4) ** 0.5 = 1/2 of 0.1
    for power, expected in ((1.0, 0.025), (0.5, 0.05)):
        found = _rates(0, 0.75, 1, learning_rate_schedule="polynomial", polynomial_power=power)
        assert found == pytest.approx([0.1, expected, 0])
    steps = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, 20, power=0.9), 20)
    assert [0.1 * polynomial(step / 20, power=0.9) for step in range(20)] == pytest.approx(steps)


def test_the_cosine_is_pytorchs():
    steps = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20), 20)
    assert _rates(*(step / 20 for step in range(20))) == pytest.approx(steps)


def test_one_cycle_is_pytorchs():
    # PyTorch counts from its first step to its last: it rises until step 0.3 * 50 - 1 = 14 of 49
    steps = _torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=50), 49
    )
    assert [0.1 * one_cycle(step / 49, warmup_fraction=14 / 49) for step in range(49)] == pytest.approx(steps)


def test_one_cycle_rises_to_the_highest_and_falls_to_nearly_nothing():
    # 0.1 / 25 = 0.004; at 0.3 the top; at the end 0.004 / 10,000
    assert _rates(0, 0.3, 1, learning_rate_schedule="one_cycle") == pytest.approx([0.004, 0.1, 4e-7])
    assert _rates(0, 1, learning_rate_schedule="one_cycle", warmup_fraction=0.0) == pytest.approx([0.1, 4e-7])


def test_warm_up_is_a_line_and_the_schedule_has_the_rest():
    # 1 % at the start; halfway up (0.01 + 1) / 2; the cosine's middle at 0.2 + 0.8 / 2 = 0.6
    found = _rates(0, 0.1, 0.2, 0.6, 1, warmup_fraction=0.2)
    assert found == pytest.approx([0.001, 0.0505, 0.1, 0.05, 0])
    assert _rates(0.2, 1, warmup_fraction=0.2, learning_rate_schedule="constant") == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25, 0.9])
def test_every_schedule_rises_once_then_falls_and_stays_in_range(name, warmup_fraction):
    found = _rates(*(step / 100 for step in range(101)), learning_rate_schedule=name, warmup_fraction=warmup_fraction)
    top = found.index(max(found))
    assert top == pytest.approx(100 * warmup_fraction, abs=1)
    assert all(later >= earlier for earlier, later in itertools.pairwise(found[: top + 1]))
    assert all(later <= earlier for earlier, later in itertools.pairwise(found[top:]))
    assert 0 <= min(found) <= max(found) <= 0.1


def test_a_warm_up_longer_than_the_budget_is_refused():
    with pytest.raises(InputError, match=r"warmup_fraction: found 1.2, expected 0 to 0.9"):
        dataclasses.replace(SETTINGS, warmup_fraction=1.2)
