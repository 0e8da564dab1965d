"""Charts: every case has its mark, where its numbers say, and text that may hold anything."""

import math
import xml.etree.ElementTree as ET

import pytest

from kits_ml.evaluation import charts


def _marks(svg: str, kind: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(svg) if one.get("class") == f"mark {kind}"]


def test_axes_have_round_ticks_around_the_values():
    axis = charts.axis_around([-3.0, 41.0], label="ml")
    assert list(axis.ticks) == [-20.0, 0.0, 20.0, 40.0, 60.0]
    assert axis.share(20.0) == 0.5
    assert axis.share(-100.0) == 0.0
    decades = charts.log_axis_around([0.5, 40.0], label="ml")
    assert list(decades.ticks) == pytest.approx([0.1, 1, 10, 100])
    assert decades.share(10) == pytest.approx(2 / 3)
    assert decades.share(0.0) == 0.0  # no logarithm of it, so it lies at the end


@pytest.mark.parametrize("values", [[], [5.0], [0.0, 0.0], [1e-9, 2e-9], [3.0, 3.0 + 1e-7]])
def test_axes_of_little(values):
    axis = charts.axis_around(values, label="")
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8


def test_every_case_is_a_mark_and_undefined_ones_are_counted():
    scores = {"kidney": {"a": 0.9, "b": 0.5, "c": 0.7}, "tumour": {"a": math.nan, "b": 0.2, "c": math.nan}}
    svg = charts.box_and_points(scores, axis=charts.share_axis("Dice"), title="Dice")
    assert (len(_marks(svg, "kidney")), len(_marks(svg, "tumour"))) == (3, 1)
    assert "n = 1, 2 undefined" in svg
    heights = [float(mark[0].get("cy")) for mark in _marks(svg, "kidney")]
    assert heights[0] < heights[2] < heights[1]  # better is higher up


def test_a_region_without_a_value():
    svg = charts.box_and_points({"tumour": {"a": math.nan}}, axis=charts.share_axis("Dice"), title="Dice")
    assert "n = 0, 1 undefined" in svg


def test_limits_of_agreement():
    # differences 1, 2, 3: mean 2, standard deviation 1
    found = charts.agreement([1.0, 2.0, 3.0])
    assert found == {"bias": 2.0, "lower limit": pytest.approx(0.04), "upper limit": pytest.approx(3.96)}
    assert math.isnan(charts.agreement([5.0])["upper limit"])
    assert math.isnan(charts.agreement([])["bias"])
    svg = charts.bland_altman({"a": (10.0, 11.0), "b": (20.0, 22.0)}, region="kidney", unit="ml", title="volumes")
    assert "a: mean 10.5 ml, difference +1 ml" in svg
    assert charts.bland_altman({}, region="kidney", unit="ml", title="volumes")


def test_any_name_is_text():
    svg = charts.points(
        {"tumour": {'<b>"&': (1.0, 0.5)}},
        x_axis=charts.log_axis_around([1.0], label="<ml>"),
        y_axis=charts.share_axis("Dice"),
        title='"<>&',
    )
    root = ET.fromstring(svg)
    assert root.get("aria-label") == '"<>&'
    assert any(one.text == '<b>"&: 1, 0.5' for one in root.iter("title"))


def test_a_reliability_curve_shows_what_is_behind_it():
    point = {"mean_probability": 0.25, "frequency": 0.5, "num_voxels": 1000, "num_cases": 3}
    svg = charts.reliability([point | {"ci_low": 0.25, "ci_high": 0.75}], label="tumour", title="reliability")
    assert "probability 0.250, right in 0.500 of 1,000 voxels of 3 cases" in svg
    (interval,) = [one for one in ET.fromstring(svg) if one.get("class") == "interval tumour"]
    assert float(interval.get("y1")) - float(interval.get("y2")) == pytest.approx(
        (charts.HEIGHT - 60) / 2, abs=0.2
    )  # half of the height between 12 above and 48 below
    assert charts.reliability([], label="tumour", title="reliability")
