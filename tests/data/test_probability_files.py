"""Probabilities are read by any reader of NIfTI, on the scan's grid, whatever its axes."""

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from kits_ml.data import probability_files, volumes
from kits_ml.data.probability_files import write_probabilities
from kits_ml.inference.packed_probabilities import PackedProbabilities

SHAPE = (3, 6, 5)


def _kept() -> np.ndarray:
    """Softmax of a window, `(slices, classes, rows, columns)`; beyond it all is background."""
    rng = np.random.default_rng(0)
    softmax = rng.dirichlet((1, 1, 1), size=(3, 4, 3)).astype(np.float32)
    softmax[0, 0, 0], softmax[0, 0, 1] = (0, 0.5, 0.5), (0, 1, 0)
    return np.moveaxis(softmax, -1, 1)


@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", ["IPL", "RAS", "LPS", "PSR"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_written_and_read(tmp_path, monkeypatch, codes, suffix, cls):
    monkeypatch.setattr(probability_files, "_BLOCK_BYTES", 40)  # several blocks
    house = nib.Nifti1Image(np.zeros(SHAPE, np.int16), volumes.kits_geometry(SHAPE, (3.0, 0.7, 0.8)).affine)
    transform = orientations.ornt_transform(orientations.axcodes2ornt("IPL"), orientations.axcodes2ornt(codes))
    turned = house.as_reoriented(transform)
    nib.save(cls(np.asarray(turned.dataobj), turned.affine), tmp_path / "scan.nii")
    geometry = volumes.read_geometry(tmp_path / "scan.nii")

    inside = (slice(1, 5), slice(2, 5))
    expected = np.zeros((*SHAPE, 3))
    expected[..., 0] = 1
    with PackedProbabilities(SHAPE, tmp_path) as kept:
        for index, one in enumerate(_kept()):
            kept(index, inside, one)
            expected[index][inside] = np.moveaxis(one, 0, -1)
        write_probabilities(tmp_path / f"p{suffix}", kept.foreground, geometry)

    found = nib.load(tmp_path / f"p{suffix}")
    assert type(found) is cls
    assert found.shape == (*turned.shape, 3)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, nib.load(tmp_path / "scan.nii").affine)
    read = found.get_fdata()
    for label in range(3):
        turned_label = orientations.apply_orientation(expected[..., label], transform)
        np.testing.assert_allclose(read[..., label], turned_label, atol=1.01 / 255)
    assert abs(read.sum(axis=-1) - 1).max() <= 1.01 / 255  # 0.5 and 0.5 are 128 and 128
    assert bytes(found.header["descrip"]).startswith(b"probabilities: background, kidney, tumour")


def test_another_grid_is_refused(tmp_path):
    geometry = volumes.kits_geometry(SHAPE, (1, 1, 1))
    for shape in ((2, 4, 5, 6), (3, *SHAPE)):
        with pytest.raises(ValueError, match="do not fit the grid"):
            write_probabilities(tmp_path / "p.nii", lambda shape=shape: np.zeros(shape), geometry)
    assert not list(tmp_path.iterdir())
