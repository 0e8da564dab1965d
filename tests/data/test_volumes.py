"""Volumes keep their voxels and their place, whatever the file's axes; bad files are named."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from kits_ml.data import volumes
from kits_ml.errors import InputError

SHAPE = (3, 5, 4)
SPACING_MM = (3.0, 0.7, 0.8)

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["RL", "AP", "SI"]) for codes in itertools.product(*axes)
]


def _house_image() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 20


def _file_in(codes: str, path, array: np.ndarray, dtype=np.int16) -> nib.Nifti1Image:
    """Writes an IPL array with its axes permuted and flipped to `codes`; the voxels stay where they are."""
    house = nib.Nifti1Image(array.astype(dtype), volumes.kits_geometry(array.shape, SPACING_MM).affine)
    transform = orientations.ornt_transform(
        orientations.io_orientation(house.affine), orientations.axcodes2ornt(codes)
    )
    image = house.as_reoriented(transform)
    nib.save(image, path)
    return image


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_is_read_the_same_and_written_back(codes, tmp_path):
    original = _file_in(codes, tmp_path / "scan.nii.gz", _house_image())
    assert "".join(nib.aff2axcodes(original.affine)) == codes

    volume = volumes.read_image(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.array, _house_image())
    np.testing.assert_allclose(volume.spacing_mm, SPACING_MM, rtol=1e-6)

    volumes.write_label_map(tmp_path / "out.nii.gz", volume.array % 3, volume.geometry)
    written = nib.load(tmp_path / "out.nii.gz")
    assert written.shape == original.shape
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(original.dataobj) % 3)


def test_an_oblique_affine_is_kept(tmp_path):
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.7, 3.0])
    affine[:3, 3] = (10, -20, 300)
    nib.save(nib.Nifti1Image(_house_image(), affine), tmp_path / "scan.nii.gz")
    volume = volumes.read_image(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(sorted(volume.spacing_mm), [0.7, 0.7, 3.0], rtol=1e-6)
    volumes.write_label_map(tmp_path / "out.nii.gz", np.zeros(volume.array.shape, np.uint8), volume.geometry)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(tmp_path / "scan.nii.gz").affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<u2", "<i4", ">f4", "<f8"])
def test_stored_types_and_byte_orders(dtype, suffix, tmp_path):
    stored = np.arange(60, dtype=dtype).reshape(SHAPE)
    affine = volumes.kits_geometry(SHAPE, SPACING_MM).affine
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(stored, affine, header), tmp_path / f"scan{suffix}")
    volume = volumes.read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(volume.array, np.arange(60).reshape(SHAPE))
    assert volume.array.dtype == (np.float32 if "f" in dtype else np.int16)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (0.5, 3, np.float32)]
)
def test_slope_and_intercept(slope, intercept, dtype, tmp_path):
    payload = bytearray(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(SHAPE), np.eye(4)).to_bytes())
    header = nib.Nifti1Header(bytes(payload[:348]))
    header["scl_slope"], header["scl_inter"] = slope, intercept
    payload[:348] = header.binaryblock
    (tmp_path / "scan.nii").write_bytes(bytes(payload))
    expected = np.asarray(nib.load(tmp_path / "scan.nii").dataobj)
    volume = volumes.read_image(tmp_path / "scan.nii")
    assert volume.array.dtype == dtype
    np.testing.assert_allclose(volume.geometry.to_file(volume.array), expected)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (2, 3)])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_placement_is_written_bit_for_bit(cls, codes, tmp_path):
    angle = np.deg2rad(7)
    affine = np.eye(4)
    affine[:2, :2] = 0.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine[:3, 3] = (1 / 3, -200 / 7, 1e3 / 9)
    image = cls(_house_image(), affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nib.save(image, tmp_path / "scan.nii")
    volume = volumes.read_image(tmp_path / "scan.nii")
    volumes.write_label_map(tmp_path / "out.nii", volume.array % 3, volume.geometry)
    scan, out = nib.load(tmp_path / "scan.nii"), nib.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(out.affine, scan.affine)
    for name in ("qform_code", "sform_code", "quatern_d", "qoffset_x", "srow_x", "pixdim"):
        np.testing.assert_array_equal(out.header[name], scan.header[name])


def test_nifti2_and_pairs_are_read(tmp_path):
    for cls, name in ((nib.Nifti2Image, "two.nii.gz"), (nib.Nifti1Pair, "pair.img")):
        nib.save(cls(_house_image(), volumes.kits_geometry(SHAPE, SPACING_MM).affine), tmp_path / name)
        np.testing.assert_array_equal(volumes.read_image(tmp_path / name).array, _house_image())


def test_cysts_are_kidney_and_said_so(tmp_path):
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0, 0, :3] = (1, 2, 3)
    nib.save(nib.Nifti1Image(label_map, np.eye(4)), tmp_path / "labels.nii.gz")
    volume = volumes.read_label_map(tmp_path / "labels.nii.gz")
    assert np.bincount(volume.array.ravel()).tolist() == [57, 2, 1]
    assert volume.note.endswith("1 voxels of label 3 (cyst) are read as kidney")
    renumbered = volumes.read_label_map(tmp_path / "labels.nii.gz", mapping={0: 0, 1: 3, 2: 2, 3: 1})
    assert renumbered.note.endswith("1 voxels of cysts are read as kidney")


@pytest.mark.parametrize("values", [(0, 4), (0, 255), (-1, 0), (0, 0.5), (0, np.nan)])
def test_other_label_values_are_refused(values, tmp_path):
    label_map = np.zeros(SHAPE, np.float32)
    label_map[0, 0, :2] = values
    nib.save(nib.Nifti1Image(label_map, np.eye(4)), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError, match=r"labels\.nii\.gz: label values .*; expected whole numbers"):
        volumes.read_label_map(tmp_path / "labels.nii.gz")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        volumes.read_image(tmp_path / "nothing.nii.gz")


@pytest.mark.parametrize(
    "content", [b"", b"no volume at all", b"\x1f\x8b\x08 not gzip", gzip.compress(b"x" * 999, mtime=0)]
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.txt"])
def test_a_file_that_is_no_nifti(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable NIfTI file|expected NIfTI"):
        volumes.read_image(tmp_path / name)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_files(keep, tmp_path):
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.integers(-99, 99, (20, 30, 30), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    whole = (tmp_path / "scan.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"scan\.nii\.gz: truncated or damaged"):
        volumes.read_image(tmp_path / "scan.nii.gz")


def test_a_flipped_bit_is_found(tmp_path):
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.integers(-99, 99, (20, 30, 30), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    damaged = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="truncated or damaged"):
        volumes.read_image(tmp_path / "scan.nii.gz")


def test_axes_other_than_three(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), tmp_path / "four.nii.gz")
    with pytest.raises(InputError, match=r"4 axes of sizes \(4, 4, 4, 2\), expected a volume of three axes"):
        volumes.read_image(tmp_path / "four.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 1), np.int16), np.eye(4)), tmp_path / "one.nii.gz")
    assert volumes.read_image(tmp_path / "one.nii.gz").array.shape == (4, 4, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(bad, tmp_path):
    image = np.zeros(SHAPE, np.float32)
    image[1, 2, 3] = bad
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match="1 of 60 voxels are NaN or infinite"):
        volumes.read_image(tmp_path / "scan.nii.gz")


def test_same_grid_is_about_places_not_numbers():
    first = volumes.kits_geometry(SHAPE, SPACING_MM)
    assert volumes.same_grid(first, volumes.kits_geometry(SHAPE, SPACING_MM))
    assert not volumes.same_grid(first, volumes.kits_geometry((3, 5, 5), SPACING_MM))
    # 0.1 mm more a slice: the third slice lies 0.2 mm off
    assert not volumes.same_grid(first, volumes.kits_geometry(SHAPE, (3.1, 0.7, 0.8)))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP"])
def test_same_grid_does_not_mind_the_files_axis_order(codes, tmp_path):
    _file_in("IPL", tmp_path / "house.nii.gz", _house_image())
    _file_in(codes, tmp_path / "other.nii.gz", _house_image())
    house, other = (volumes.read_geometry(tmp_path / name) for name in ("house.nii.gz", "other.nii.gz"))
    assert house.shape == house.house_shape == other.house_shape == SHAPE
    assert volumes.same_grid(house, other)
    moved = volumes.Geometry(shape=other.shape, affine=np.diag([1, 1, 1.1, 1]) @ other.affine)
    assert not volumes.same_grid(house, moved)


def test_a_header_without_its_voxels(tmp_path):
    nib.save(nib.Nifti1Pair(_house_image(), np.eye(4)), tmp_path / "pair.img")
    (tmp_path / "pair.img").unlink()
    with pytest.raises(InputError, match=r"pair\.hdr: its voxels are missing, expected pair\.img beside it"):
        volumes.read_image(tmp_path / "pair.hdr")


def test_equal_volumes_give_equal_bytes(tmp_path):
    geometry = volumes.kits_geometry(SHAPE, SPACING_MM)
    for name in ("one.nii.gz", "two.nii.gz"):
        volumes.write_image(tmp_path / name, _house_image(), geometry)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.nii.gz", "two.nii.gz"]


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        ((-32768, 32767), np.int64, np.int16),
        ((0, 32767), np.uint16, np.int16),
        ((0, 32768), np.uint16, np.float32),
        ((-32769, 0), np.int32, np.float32),
        ((-0.5, 100.5), np.float32, np.float32),
        ((-100, 40000), np.float64, np.float32),
    ],
)
def test_hu_are_written_as_they_are(values, dtype, stored, tmp_path):
    image = np.zeros(SHAPE, dtype)
    image[0, 0, :2] = values
    volumes.write_image(tmp_path / "scan.nii.gz", image, volumes.kits_geometry(SHAPE, SPACING_MM))
    assert nib.load(tmp_path / "scan.nii.gz").get_data_dtype() == stored
    np.testing.assert_array_equal(volumes.read_image(tmp_path / "scan.nii.gz").array, image)


def test_an_output_name_must_be_niftis(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.nii\.gz or \.nii"):
        volumes.write_image(tmp_path / "scan.png", _house_image(), volumes.kits_geometry(SHAPE, SPACING_MM))


def test_the_real_volume_is_kits_own_orientation(real_data):
    volume = volumes.read_image(real_data / "ircadb/case_ircadb01/imaging.nii.gz")
    assert volume.geometry.orientation == "IPL"
    assert volume.array.shape == (129, 512, 512)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.spacing_mm, (1.6, 0.57, 0.57), rtol=1e-5)


@pytest.mark.parametrize(("unit", "name"), [("meter", "metre"), ("micron", "micrometre")])
def test_another_unit_than_millimetres_is_refused(unit, name, tmp_path):
    image = _file_in("RAS", tmp_path / "a.nii", _house_image())
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match=f"a.nii: its unit of length is the {name}, expected the millimetre"):
        volumes.read_image(tmp_path / "a.nii")


def test_what_of_the_placement_is_a_guess_is_said(tmp_path):
    path = tmp_path / "a.nii"
    image = _file_in("RAS", path, _house_image())
    assert volumes.read_image(path).note == ""
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nib.save(image, path)
    assert "a.nii: its header gives no orientation" in volumes.read_image(path).note
    sheared = image.affine.copy()
    sheared[:3, 2] = 3 * np.array([0, np.sin(np.radians(10)), np.cos(np.radians(10))])
    nib.save(nib.Nifti1Image(_house_image(), sheared), path)
    assert "its axes are 10.0 degrees from right angles" in volumes.read_image(path).note
