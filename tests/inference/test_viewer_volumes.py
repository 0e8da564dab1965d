"""What the viewer gets lies where the scan lies, and is small enough."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from kits_ml.data import volumes
from kits_ml.inference import viewer_volumes
from kits_ml.inference.viewer_volumes import ViewerGrid, fit_grid

SPACING_MM = (4.0, 1.0, 1.0)
SHAPE = (10, 40, 60)
AFFINE = volumes.kits_geometry(SHAPE, SPACING_MM).house_affine


def _scan() -> tuple[np.ndarray, np.ndarray]:
    image = np.full(SHAPE, -1000, np.int16)
    image[:, 12:30, 20:50] = 40
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[3:7, 15:20, 30:40] = 1
    return image, label_map


def _decode(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_the_body_is_kept_with_a_margin_and_all_that_is_labelled():
    image, label_map = _scan()
    grid = fit_grid(image, label_map, spacing_mm=SPACING_MM)
    assert grid.box[0] == slice(0, 10)
    for part, (first, last) in zip(grid.box[1:], ((12, 30), (20, 50)), strict=True):
        assert first - 11 <= part.start <= first - 9  # 10 mm, and a coarse pixel of the body's box
        assert last + 9 <= part.stop <= last + 11 or part.stop in SHAPE
    label_map[0, 39, 59] = 1
    assert [part.stop for part in fit_grid(image, label_map, spacing_mm=SPACING_MM).box] == list(SHAPE)


def test_the_finest_axes_are_thinned_out_first():
    image, label_map = _scan()
    num_voxels = np.prod([part.stop - part.start for part in fit_grid(image, label_map, spacing_mm=SPACING_MM).box])
    options = {"most_voxels": num_voxels // 2}
    assert fit_grid(image, label_map, spacing_mm=(4.0, 1.0, 1.0), **options).steps == (1, 2, 2)
    assert fit_grid(image, label_map, spacing_mm=(0.5, 1.0, 1.0), **options).steps == (2, 1, 1)


def test_a_plane_of_one_row_can_be_thinned_out():
    image, label_map = np.zeros((64, 1, 512), np.int16), np.zeros((64, 1, 512), np.uint8)
    grid = fit_grid(image, label_map, spacing_mm=(5.0, 1.0, 1.0), most_voxels=4096)
    assert grid.steps[1] == 1 < grid.steps[2]
    assert viewer_volumes.block_means(image, grid).shape[1] == 1


def test_a_voxel_keeps_its_place():
    image, _ = _scan()
    grid = ViewerGrid(box=(slice(0, 10), slice(4, 40), slice(10, 60)), steps=(1, 1, 1), is_cut=True)
    shown = _decode(viewer_volumes.encode_image(image, grid, AFFINE))
    assert shown.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asanyarray(shown.dataobj), image[grid.box])
    # the viewer's first voxel is the scan's (0, 4, 10)
    np.testing.assert_allclose(shown.affine @ [0, 0, 0, 1], AFFINE @ [0, 4, 10, 1])
    np.testing.assert_allclose(shown.affine @ [2, 3, 5, 1], AFFINE @ [2, 7, 15, 1])


def test_a_block_lies_in_the_middle_of_its_voxels():
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    grid = ViewerGrid(box=(slice(0, 10), slice(4, 39), slice(10, 60)), steps=(1, 2, 2), is_cut=True)
    shown = _decode(viewer_volumes.encode_image(image, grid, AFFINE))
    assert shown.shape == (10, 17, 25)  # 35 rows: the last fills no block
    # of rows 4 and 5, columns 10 and 11: 240 + 10, + 1, + 60, + 61, a mean of 280.5, rounded to even
    assert np.asanyarray(shown.dataobj)[0, 0, 0] == 280
    np.testing.assert_allclose(shown.affine @ [0, 0, 0, 1], AFFINE @ [0, 4.5, 10.5, 1])
    np.testing.assert_allclose(nib.affines.voxel_sizes(shown.affine), (4, 2, 2))


def test_a_blocks_label_is_that_of_most_voxels():
    label_map = np.zeros((1, 2, 6), np.uint8)
    label_map[0, :, 0:2] = [[1, 2], [1, 1]]
    label_map[0, :, 2:4] = [[0, 0], [0, 2]]
    label_map[0, :, 4:6] = [[1, 1], [2, 2]]
    grid = ViewerGrid(box=(slice(0, 1), slice(0, 2), slice(0, 6)), steps=(1, 2, 2), is_cut=False)
    assert np.asanyarray(_decode(viewer_volumes.encode_labels(label_map, grid, np.eye(4))).dataobj).tolist() == [
        [[1, 0, 1]]
    ]


@pytest.mark.parametrize(
    ("steps", "is_cut", "note"),
    [
        ((1, 1, 1), True, "Shown here cut to the body; volumes and diameters are measured on the whole scan."),
        ((1, 2, 2), True, "Shown here cut to the body and averaged over 2 rows and 2 columns; volumes and"),
        ((3, 1, 1), True, "Shown here cut to the body and averaged over 3 slices; volumes and"),
        ((3, 1, 1), False, "Shown here averaged over 3 slices; volumes and"),
    ],
)
def test_it_says_what_it_left_out(steps, is_cut, note):
    assert ViewerGrid(box=(slice(0, 1),) * 3, steps=steps, is_cut=is_cut).note().startswith(note)


def test_it_says_nothing_where_nothing_is_left_out():
    image, label_map = _scan()
    assert fit_grid(image, label_map, spacing_mm=SPACING_MM).note().startswith("Shown here cut to the body;")
    label_map[0, [0, -1], [0, -1]] = 1  # in the plane's corners
    whole = fit_grid(image, label_map, spacing_mm=SPACING_MM)
    assert (whole.box, whole.steps) == (tuple(slice(0, size) for size in SHAPE), (1, 1, 1))
    assert whole.note() == ""
