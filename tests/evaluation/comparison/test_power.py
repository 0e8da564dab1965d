"""Numbers of patients against known power and against simulation."""

import math

import numpy as np
import pytest

from kits_ml.evaluation.comparison import power, significance


def test_power_is_rs():
    """`power.t.test(n = 20, delta = 1, sd = 1, type = "paired")`: 0.9886; Cohen's n of 34 for d = 0.5, power 0.8."""
    assert power.power_of(20, effect=1, alpha=0.05) == pytest.approx(0.9886, abs=5e-5)
    assert power.power_of(33, effect=0.5, alpha=0.05) < 0.8 < power.power_of(34, effect=0.5, alpha=0.05)
    assert power.patients_needed(0.5, sd=1, alpha=0.05, power=0.8) == math.ceil(34 * math.pi / 3)


def test_needed_and_detectable_agree():
    options = {"sd": 0.12, "alpha": 0.05 / 4, "power": 0.8}
    needed = power.patients_needed(0.01, **options)
    assert (
        power.detectable_difference(needed, **options) <= 0.01001 < power.detectable_difference(needed - 9, **options)
    )


def test_wilcoxon_has_the_power_that_is_told():
    needed = power.patients_needed(0.02, sd=0.04, alpha=0.05, power=0.8)
    rng = np.random.default_rng(0)
    found = np.mean([significance.wilcoxon(rng.normal(0.02, 0.04, needed)) < 0.05 for _ in range(200)])
    assert found == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 200))


@pytest.mark.parametrize(
    ("difference", "sd", "expected"),
    [(0.01, 0.0, None), (1e-6, 1.0, None), (5.0, 1e-9, 8)],
)
def test_ends(difference, sd, expected):
    # eight patients are the first that can have a p below 0.0125: 2 / 2^8 = 0.0078, but 2 / 2^7 = 0.0156
    assert power.patients_needed(difference, sd=sd, alpha=0.0125, power=0.8) == expected


def test_power_far_out():
    powers = [power.power_of(1685, effect=effect, alpha=0.0125) for effect in (0.05, 0.1, 0.3, 0.5, 1, 3)]
    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(1)


def test_five_patients_show_nothing():
    assert math.isinf(power.detectable_difference(5, sd=0.1, alpha=0.05, power=0.8))  # 2 / 2^5 = 0.0625
    assert power.detectable_difference(6, sd=0.1, alpha=0.05, power=0.8) > 0.1
    assert power.detectable_difference(9, sd=0.0, alpha=0.05, power=0.8) == 0
