"""Figures say what they were given; nobody needs a screen."""

import numpy as np
import pytest

from kits_ml import figures

SPACING_MM = (3.0, 0.5, 1.0)


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.linspace(-1000, 1500, 20 * 40 * 30, dtype=np.float32).reshape(20, 40, 30)
    true = np.zeros(image.shape, np.uint8)
    true[5:15, 10:20, 10:20] = 1
    true[8, 10:18, 10:18] = 2
    true[12, 8:24, 8:24] = 1
    pred = np.roll(true, 3, axis=2)
    pred[16, 5:35, 5:25] = 1
    return image, true, pred


def _saved(figure, path) -> bytes:
    figures.save_figure(path, figure)
    return path.read_bytes()


def test_telling_slices_give_their_reason():
    _, true, pred = _case()
    # tumour only on slice 8; the largest kidney is the 16 x 16 of slice 12; slice 16 has 600 pixels of difference and
    # is the largest predicted kidney too
    assert figures.telling_slices(true, pred) == {
        8: "largest tumour",
        12: "largest kidney",
        16: "largest difference",
    }
    assert figures.telling_slices(None, pred) == {8: "largest predicted tumour", 16: "largest predicted kidney"}
    assert figures.telling_slices(true, pred, most=1) == {8: "largest tumour"}
    assert figures.telling_slices(np.zeros_like(true), np.zeros_like(true)) == {}
    assert figures.telling_slices(None, None) == {}


def test_overlay_of_case_shows_the_slices_and_a_legend(tmp_path):
    image, true, pred = _case()
    figure = figures.overlay_of_case(image, true, pred, spacing_mm=SPACING_MM, title="case_00000")
    assert figure.get_suptitle() == "case_00000"
    assert [axes.get_title() for axes in figure.axes] == [
        "slice 8: largest tumour",
        "slice 12: largest kidney",
        "slice 16: largest difference",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "kidney, truth",
        "kidney, prediction",
        "tumour, truth",
        "tumour, prediction",
    ]
    assert _saved(figure, tmp_path / "new" / "overlay.png").startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["overlay.png"]  # no partial file is left


def test_a_body_is_drawn_as_wide_as_it_is():
    image, true, pred = _case()
    for axes in figures.overlay_of_case(image, true, pred, spacing_mm=SPACING_MM).axes:
        assert axes.get_aspect() == 0.5 / 1.0
        assert axes.images[0].get_clim() == figures.WINDOW_HU


@pytest.mark.parametrize("known", ["truth", "prediction", "neither", "empty"])
def test_overlay_without_truth_or_prediction(known, tmp_path):
    image, true, pred = _case()
    if known == "empty":
        true, pred = np.zeros_like(true), np.zeros_like(pred)
    figure = figures.overlay_of_case(
        image,
        true if known in ("truth", "empty") else None,
        pred if known in ("prediction", "empty") else None,
        spacing_mm=SPACING_MM,
    )
    assert len(figure.axes) == {"truth": 2, "prediction": 2, "neither": 1, "empty": 1}[known]
    assert _saved(figure, tmp_path / "overlay.png")


def test_overlay_refuses_another_shape():
    image, true, _ = _case()
    with pytest.raises(ValueError, match=r"shape \(19, 40, 30\), expected the image's \(20, 40, 30\)"):
        figures.overlay_of_case(image, true[1:], None, spacing_mm=SPACING_MM)


def test_learning_curves_sort_their_lines_into_panels(tmp_path):
    history = {
        "loss": [1.0, 0.5],
        "val_loss": [1.1, np.nan],
        "dice_loss": [0.9, 0.6],
        "dice_tumour": [0.1, 0.4],
        "val_mean_iou": [0.3, 0.4],
        "learning_rate": [1e-3, 1e-4],
    }
    figure = figures.learning_curves(history, title="run")
    drawn = [[line.get_label() for line in axes.get_lines()] for axes in figure.axes]
    assert drawn == [["loss", "val_loss", "dice_loss"], ["dice_tumour", "val_mean_iou"]]
    loss, val_loss, _ = figure.axes[0].get_lines()
    assert loss.get_color() == val_loss.get_color()
    assert (loss.get_linestyle(), val_loss.get_linestyle()) == ("-", "--")
    assert _saved(figure, tmp_path / "curves.png")


@pytest.mark.parametrize("history", [{}, {"loss": []}, {"loss": [0.3]}])
def test_learning_curves_of_hardly_anything(history, tmp_path):
    assert _saved(figures.learning_curves(history), tmp_path / "curves.png")


def test_box_plot_counts_what_it_leaves_out(tmp_path):
    figure = figures.box_plot_of_scores(
        {"kidney": {"unet": [0.9, 0.8, 0.95]}, "tumour": {"unet": [0.4, np.nan, np.nan], "nothing": [np.nan]}}
    )
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["unet\nn = 3"], ["unet\nn = 1\n2 undefined", "nothing\nn = 0\n1 undefined"]]
    assert [axes.get_title() for axes in figure.axes] == ["kidney", "tumour"]
    assert _saved(figure, tmp_path / "boxes.png")
    assert _saved(figures.box_plot_of_scores({}), tmp_path / "empty.png")


def test_same_scores_same_picture(tmp_path):
    scores = {"kidney": {"unet": [0.9, 0.8, 0.95]}}
    first = _saved(figures.box_plot_of_scores(scores), tmp_path / "first.png")
    assert first == _saved(figures.box_plot_of_scores(scores), tmp_path / "second.png")
