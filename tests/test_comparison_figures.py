"""The pictures of a comparison say what the arrays say."""

import numpy as np
import pytest

from kits_ml import comparison_figures, figures

NAMES = ("unet", "a", "b", "c")


def _texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _ticks(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_forest_writes_what_was_shown():
    figure = comparison_figures.forest(
        NAMES[1:],
        np.array([0.1, 0.0, -0.1]),
        np.array([[0.05, 0.15], [-0.01, 0.01], [-0.2, 0.1]]),
        verdicts=["better", "equivalent", "open"],
        margin=0.02,
        label="difference",
    )
    (axes,) = figure.axes
    assert _texts(figure) == ["better", "equivalent", "open"]
    assert _ticks(axes) == ["a", "b", "c"]
    assert axes.yaxis_inverted()  # the first is on top
    assert axes.patches[0].get_extents().width > 0


def test_case_differences_are_sorted_and_counted():
    differences = {"a": np.array([0.2, -0.1, 0.0, 0.3]), "b": np.array([-0.1, -0.2, -0.3, -0.4])}
    figure = comparison_figures.case_differences(
        differences, verdicts={"a": "open", "b": "worse"}, margin=0.01, label="difference"
    )
    assert _texts(figure) == ["1 lower, 2 higher", "4 lower, 0 higher"]
    heights = [segment[1, 1] for segment in figure.axes[0].collections[0].get_segments()]
    assert heights == sorted(differences["a"])


def test_five_panels_take_two_rows():
    differences = {name: np.zeros(3) for name in "abcde"}
    figure = comparison_figures.case_differences(
        differences, verdicts=dict.fromkeys("abcde", "open"), margin=0.01, label=""
    )
    assert sum(axes.axison for axes in figure.axes) == 5


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_significance_map_colours_what_is_shown(higher_is_better):
    differences = np.array([[0, 0.2, 0.1], [-0.2, 0, -0.1], [-0.1, 0.1, 0]])
    p_values = np.array([[1, 0.0001, 0.3], [0.0001, 1, 0.04], [0.3, 0.04, 1]])
    figure = comparison_figures.significance_map(
        NAMES[:3], differences, p_values, alpha=0.05, label="", higher_is_better=higher_is_better
    )
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts][:2] == ["+0.200\np < 0.001", "+0.100\np = 0.300"]
    assert [text.get_weight() for text in axes.texts][:2] == ["bold", "normal"]
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, np.where(p_values < 0.05, differences, 0) * (1 if higher_is_better else -1))


def test_critical_difference_diagram_names_all():
    ranks = np.array([3.143, 2.000, 2.893, 1.964])  # Demšar's example
    figure = comparison_figures.critical_difference_diagram(NAMES, ranks, critical_difference=1.25, alpha=0.05)
    texts = _texts(figure)
    assert "critical difference 1.25 (α = 0.05)" in texts
    assert {"c  1.96", "a  2.00", "2.89  b", "3.14  unet"} <= set(texts)


def test_groups():
    # of 1, 1.5, 2.2 and 4 those less than 1 apart: 1 and 1.5, 1.5 and 2.2
    assert comparison_figures._groups(np.array([1, 1.5, 2.2, 4]), 1.0) == [(0, 1), (1, 2)]
    assert comparison_figures._groups(np.array([1, 1.5, 2.2, 4]), 9.0) == [(0, 3)]
    assert comparison_figures._groups(np.array([1.0, 2.0]), 0.5) == []


def test_rank_distributions_are_sorted_by_rank():
    shares = np.array([[0.2, 0.8, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])
    figure = comparison_figures.rank_distributions(
        NAMES[:3], {"aggregate_then_rank": shares}, ranks={"aggregate_then_rank": np.array([2, 1, 3])}
    )
    (axes,) = figure.axes
    assert _ticks(axes) == ["a", "unet", "b"]
    assert _texts(figure) == ["80%", "20%", "20%", "80%", "100%"]


def test_svg_is_the_same_each_time():
    def draw() -> bytes:
        figure = comparison_figures.critical_difference_diagram(
            NAMES, np.array([1.0, 2.0, 3.0, 4.0]), critical_difference=1.5, alpha=0.05
        )
        return figures.to_svg(figure)

    assert draw() == draw()
    assert b"<svg" in draw()
