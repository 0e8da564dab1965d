"""However a scan is stored, its label map is the same voxels in the same places; the network is a function."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel import orientations

from kits_ml.config import PostprocessingSettings, PreprocessingSettings
from kits_ml.data import volumes
from kits_ml.inference.predictor import Predictor
from kits_ml.workflows.predict import Outputs, predict_scan, read_scan
from kits_ml.workflows.segmenters import Segmenter
from tests.conftest import body
from tests.inference.networks import by_brightness

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["RL", "AP", "SI"]) for codes in itertools.product(*axes)
]
PREPARATIONS = {
    "stretch": PreprocessingSettings(image_size=24),
    "spacing": PreprocessingSettings(image_size=24, framing="spacing", pixel_spacing_mm=2.5, crop="body"),
}
CLEANING = PostprocessingSettings(keep_largest_kidneys=2, fill_holes="volume", tumour_contact_mm=5.0)

#: Type and byte order of the stored numbers, slope and intercept: HU = stored * slope + intercept.
STORAGE = [("<i2", 1, 0), (">i2", 1, 0), ("<u2", 1, -1024), ("<i2", 2, -1024), (">f4", 0.5, 10), ("<f8", 1, 0)]

_spacings = st.tuples(
    st.sampled_from([0.5, 1.0, 3.0, 5.0]), st.sampled_from([0.4, 0.78125, 1.2]), st.sampled_from([0.4, 0.78125, 1.2])
)
_shapes = st.tuples(st.integers(1, 5), st.integers(30, 44), st.integers(30, 44))


def _segmenter(preparation: str, cleaning: PostprocessingSettings) -> Segmenter:
    network = Predictor(by_brightness(), PREPARATIONS[preparation], batch_size=4)
    return Segmenter(network=network, postprocessing=cleaning)


def _tilted(affine: np.ndarray, degrees: float) -> np.ndarray:
    """An oblique scan's: the patient's left and back turned into each other."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(4)
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return turn @ affine


def _write(path, house: np.ndarray, affine: np.ndarray, *, codes: str, storage) -> nib.Nifti1Image:
    """Writes HU in the house's order with axes permuted and flipped to `codes`, as the storage says."""
    dtype, slope, intercept = storage
    transform = orientations.ornt_transform(orientations.axcodes2ornt("IPL"), orientations.axcodes2ornt(codes))
    stored = orientations.apply_orientation((house - intercept) / slope, transform).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(stored, affine @ orientations.inv_ornt_aff(transform, house.shape), header)
    image.header.set_slope_inter(1, 0)
    payload = bytearray(image.to_bytes())
    written = nib.Nifti1Header(bytes(payload[:348]))
    written["scl_slope"], written["scl_inter"] = slope, intercept
    payload[:348] = written.binaryblock
    path.write_bytes(bytes(payload))
    return nib.load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("geometry")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codes=st.sampled_from(ORIENTATIONS),
    spacing_mm=_spacings,
    shape=_shapes,
    storage=st.sampled_from(STORAGE),
    degrees=st.sampled_from([0.0, 0.0, 7.0, -20.0]),
    preparation=st.sampled_from(sorted(PREPARATIONS)),
    cleaning=st.sampled_from([PostprocessingSettings(), CLEANING]),
)
def test_the_prediction_turns_with_the_scan(
    folder, codes, spacing_mm, shape, storage, degrees, preparation, cleaning
):
    num_slices, num_rows, num_columns = shape
    house = (body(num_slices=num_slices, size=44)[0] // 2 * 2)[:, :num_rows, :num_columns]
    segmenter = _segmenter(preparation, cleaning)
    affine = _tilted(volumes.kits_geometry(house.shape, spacing_mm).affine, degrees)
    scan = _write(folder / "scan.nii", house, affine, codes=codes, storage=storage)
    image = read_scan(folder / "scan.nii")
    np.testing.assert_array_equal(image.array, house)
    np.testing.assert_allclose(image.spacing_mm, spacing_mm, rtol=1e-6)
    expected = segmenter.segment(house, spacing_mm=image.spacing_mm)  # headers are float32
    predicted = predict_scan(segmenter, image, Outputs(output=folder / "seg.nii.gz"))

    found = nib.load(folder / "seg.nii.gz")
    assert (found.shape, found.get_data_dtype()) == (scan.shape, np.uint8)
    np.testing.assert_array_equal(found.affine, scan.affine)
    transform = orientations.ornt_transform(orientations.axcodes2ornt("IPL"), orientations.axcodes2ornt(codes))
    np.testing.assert_array_equal(np.asarray(found.dataobj), orientations.apply_orientation(expected, transform))
    voxel_ml = np.prod(spacing_mm) / 1000
    assert predicted.volumes_ml["kidney"] == pytest.approx((expected > 0).sum() * voxel_ml, rel=1e-5)


def test_there_is_something_to_turn():
    """What is compared above is no empty map, and differs along each axis."""
    house = body(num_slices=5, size=44)[0][:, :40]
    for preparation in PREPARATIONS:
        label_map = _segmenter(preparation, PostprocessingSettings()).segment(house, spacing_mm=(3.0, 0.8, 0.7))
        assert {0, 1, 2} == set(np.unique(label_map))
        for axis in range(3):
            assert (label_map != np.flip(label_map, axis)).any()
