"""What moves a slice moves its labels, and to where arithmetic says."""

import numpy as np
import pytest

from kits_ml.training.spatial import SpatialChange, move, source_positions

SIZE = 64


def _square(first_row: int, first_column: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A slice that is 1 on a square of kidney with a smaller one of tumour in it, and 0 elsewhere; and its labels."""
    label_map = np.zeros((SIZE, SIZE), np.uint8)
    label_map[first_row : first_row + side, first_column : first_column + side] = 1
    label_map[first_row + 3 : first_row + 6, first_column + 3 : first_column + 6] = 2
    return (label_map > 0).astype(np.float32)[..., None], label_map


def _noise(*, num_slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((SIZE, SIZE, num_slices), np.float32), rng.integers(0, 3, (SIZE, SIZE), np.uint8)


def _middle(mask: np.ndarray) -> np.ndarray:
    """Mean row and column."""
    return np.argwhere(mask).mean(axis=0)


BENDING = np.random.default_rng(3).normal(0, 0.02, (8, 8, 2))
CHANGES = {
    "flip left right": SpatialChange(flip_left_right=True),
    "flip up down": SpatialChange(flip_up_down=True),
    "rotation": SpatialChange(rotation_degrees=-17.3),
    "shrunk": SpatialChange(scale=0.7),
    "enlarged": SpatialChange(scale=1.4),
    "shift": SpatialChange(shift=(0.083, -0.121)),
    "bent": SpatialChange(bending=BENDING),
    "all": SpatialChange(flip_left_right=True, rotation_degrees=11, scale=1.2, shift=(-0.05, 0.06), bending=BENDING),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_image_and_labels_move_together(change):
    image, label_map = _square(24, 20)
    moved, labels = move(image, label_map, change)
    assert (moved.dtype, labels.dtype) == (np.float32, np.uint8)
    assert (moved.shape, labels.shape) == (image.shape, label_map.shape)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert moved.min() >= 0
    assert moved.max() <= 1
    # the image is 1 where the kidney is: half way down its edge and the labels' edge are one but for rounding
    bright, kidney = moved[..., 0] > 0.5, labels > 0
    edge = 4 * np.sqrt(kidney.sum())  # pixels along a square's edge
    assert np.count_nonzero(bright != kidney) < 0.25 * edge
    np.testing.assert_allclose(_middle(bright), _middle(kidney), atol=0.3)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_labels_are_never_mixed(change):
    image, label_map = _square(24, 20)
    _, labels = move(image, 2 * (label_map > 0).astype(np.uint8), change)
    assert set(np.unique(labels)) == {0, 2}  # kidney, 1, would lie between


def test_nothing_to_move():
    image, label_map = _noise()
    moved, labels = move(image, label_map, SpatialChange())
    assert moved is image
    assert labels is label_map
    rows, columns = source_positions((5, 7), SpatialChange())
    np.testing.assert_allclose(rows, np.mgrid[:5, :7][0], atol=1e-6)
    np.testing.assert_allclose(columns, np.mgrid[:5, :7][1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (SpatialChange(flip_left_right=True), lambda array: array[:, ::-1]),
        (SpatialChange(flip_up_down=True), lambda array: array[::-1]),
        (SpatialChange(rotation_degrees=90), np.rot90),
        (SpatialChange(rotation_degrees=-90), lambda array: np.rot90(array, -1)),
        (SpatialChange(rotation_degrees=180), lambda array: array[::-1, ::-1]),
        # flipped first: the upper left corner goes to the upper right, and from there to the upper left
        (SpatialChange(flip_left_right=True, rotation_degrees=90), lambda array: np.rot90(array[:, ::-1])),
    ],
    ids=["left right", "up down", "90", "-90", "180", "flip, then 90"],
)
@pytest.mark.parametrize("num_slices", [1, 3, 5])
def test_turns_that_hit_pixels_are_exact(change, expected, num_slices):
    image, label_map = _noise(num_slices=num_slices)
    moved, labels = move(image, label_map, change)
    np.testing.assert_allclose(moved, expected(image), atol=1e-4)
    np.testing.assert_array_equal(labels, expected(label_map))


@pytest.mark.parametrize("flip", ["flip_left_right", "flip_up_down"])
def test_a_flip_undoes_itself(flip):
    image, label_map = _noise()
    change = SpatialChange(**{flip: True})
    again, labels = move(*move(image, label_map, change), change)
    np.testing.assert_allclose(again, image, atol=1e-4)
    np.testing.assert_array_equal(labels, label_map)


def test_a_shift_of_whole_pixels_leaves_nothing_behind():
    image, label_map = _noise()
    moved, labels = move(image, label_map, SpatialChange(shift=(5 / SIZE, -3 / SIZE)))
    # content goes 5 rows down and 3 columns to the left; what was not there is 0
    np.testing.assert_allclose(moved[5:, :-3], image[:-5, 3:], atol=1e-4)
    np.testing.assert_array_equal(labels[5:, :-3], label_map[:-5, 3:])
    assert moved[:5].max() == moved[:, -3:].max() == labels[:5].max() == labels[:, -3:].max() == 0


@pytest.mark.parametrize("scale", [0.5, 2.0, 1.5])
def test_scale_is_of_lengths_about_the_middle(scale):
    image, label_map = _square(20, 28, side=24)  # middle 31.5, 39.5; that of the slice is 31.5, 31.5
    _, labels = move(image, label_map, SpatialChange(scale=scale))
    inside = scale * 20 / 2 + scale * 8 < SIZE / 2  # columns 28 to 51 reach 20 beyond the middle
    if inside:
        assert (labels > 0).sum() == pytest.approx(24**2 * scale**2, rel=0.02)
        np.testing.assert_allclose(_middle(labels > 0), [31.5, 31.5 + 8 * scale], atol=0.3)
    small, small_map = _square(28, 28, side=8)
    moved, labels = move(small, small_map, SpatialChange(scale=scale))
    assert (labels > 0).sum() == pytest.approx(64 * scale**2, rel=0.02)
    assert moved.sum() == pytest.approx(64 * scale**2, rel=0.05)


def test_bending_moves_by_what_the_coarse_grid_says():
    image, label_map = _noise()
    even = np.broadcast_to([4 / SIZE, -2 / SIZE], (8, 8, 2))  # the source lies 4 rows below, 2 columns left: a shift
    bent, shifted = (
        move(image, label_map, change)
        for change in (SpatialChange(bending=even), SpatialChange(shift=(-4 / SIZE, 2 / SIZE)))
    )
    np.testing.assert_allclose(bent[0], shifted[0], atol=1e-3)
    np.testing.assert_array_equal(bent[1], shifted[1])


def test_bending_half_as_strong_again_as_the_default_does_not_fold():
    # where columns (rows) stay in order along each row (column) nothing is passed twice
    for seed in range(20):
        bending = np.random.default_rng(seed).normal(0, 0.015, (8, 8, 2))
        rows, columns = source_positions((256, 256), SpatialChange(bending=bending))
        assert np.diff(rows, axis=0).min() > 0
        assert np.diff(columns, axis=1).min() > 0


def test_neighbours_move_alike():
    image, label_map = _noise()
    three = np.repeat(image, 3, axis=-1)
    moved, _ = move(three, label_map, CHANGES["all"])
    alone, _ = move(image, label_map, CHANGES["all"])
    for number in range(3):
        np.testing.assert_allclose(moved[..., number], alone[..., 0], atol=1e-5)


def test_slices_need_not_be_square():
    image = np.random.default_rng(0).random((20, 32, 1), np.float32)
    moved, labels = move(image, image[..., 0].round().astype(np.uint8), SpatialChange(rotation_degrees=180))
    np.testing.assert_allclose(moved, image[::-1, ::-1], atol=1e-4)
    assert labels.shape == (20, 32)
