"""A label map that is not what was written does not stay."""

import nibabel as nib
import numpy as np
import pytest

from kits_ml.data import verification, volumes
from kits_ml.errors import InputError

SHAPE = (3, 5, 4)


@pytest.fixture
def label_map():
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def _geometries(tmp_path):
    """The house's own, and one of a file with turned axes."""
    house = volumes.kits_geometry(SHAPE, (3.0, 0.7, 0.8))
    affine = np.array([[0.7, 0, 0, 1], [0, 0.8, 0.1, 2], [0, 0, 3, -300], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.int16), affine), tmp_path / "scan.nii")
    return house, volumes.read_geometry(tmp_path / "scan.nii")


@pytest.mark.parametrize("name", ["seg.nii", "seg.nii.gz"])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_written_stays(tmp_path, label_map, name, which):
    geometry = _geometries(tmp_path)[which]
    verification.write_verified(tmp_path / name, label_map, geometry)
    np.testing.assert_array_equal(volumes.read_label_map(tmp_path / name).array, label_map)


def _change_a_voxel(path, label_map, geometry):
    return (label_map + (np.arange(label_map.size).reshape(label_map.shape) == 7)).astype(np.uint8), geometry


def _swap_two(path, label_map, geometry):
    flipped = np.flip(label_map, 1)  # as many voxels of each label
    assert (flipped != label_map).any()
    return flipped, geometry


def _move(path, label_map, geometry):
    moved = geometry.affine.copy()
    moved[0, 3] += 1
    return label_map, volumes.Geometry(shape=geometry.shape, affine=moved)


def _lose_a_slice(path, label_map, geometry):
    return label_map[1:], volumes.kits_geometry((2, 5, 4), (3.0, 0.7, 0.8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_change_a_voxel, "voxels with CRC-32 [0-9a-f]{8} instead of [0-9a-f]{8}"),
        (_swap_two, "voxels with CRC-32"),
        (_move, "affine .* instead of"),
        (_lose_a_slice, r"shape \(2, 5, 4\) instead of \(3, 5, 4\)"),
    ],
)
def test_what_differs_is_removed(tmp_path, label_map, monkeypatch, damage, message):
    write = volumes.write_label_map
    monkeypatch.setattr(volumes, "write_label_map", lambda path, *given: write(path, *damage(path, *given)))
    geometry, _ = _geometries(tmp_path)
    with pytest.raises(InputError, match=rf"seg\.nii\.gz: read back after writing: {message}.*the file was removed"):
        verification.write_verified(tmp_path / "seg.nii.gz", label_map, geometry)
    assert not (tmp_path / "seg.nii.gz").exists()


def test_half_a_file_is_removed(tmp_path, label_map, monkeypatch):
    write = volumes.write_label_map

    def truncated(path, *given):
        write(path, *given)
        path.write_bytes(path.read_bytes()[:-20])

    monkeypatch.setattr(volumes, "write_label_map", truncated)
    with pytest.raises(InputError, match="read back after writing: truncated or damaged"):
        verification.write_verified(tmp_path / "seg.nii", label_map, _geometries(tmp_path)[0])
    assert not (tmp_path / "seg.nii").exists()
