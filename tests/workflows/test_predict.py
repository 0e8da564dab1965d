"""predict writes on the scan's own grid for all 48 orders and directions of its axes."""

import itertools

import keras
import nibabel as nib
import numpy as np
import pytest

from kits_ml.config import PredictSettings, PreprocessingSettings
from kits_ml.data import volumes
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor
from kits_ml.workflows.predict import predict
from tests.conftest import body

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["RL", "AP", "SI"]) for codes in itertools.product(*axes)
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A saved model that calls bright pixels kidney and half-bright ones tumour."""
    inputs = keras.Input((32, 32, 1))
    outputs = keras.layers.Softmax()(keras.layers.Conv2D(3, 1)(inputs))
    model = keras.Model(inputs, outputs)
    model.layers[1].set_weights([np.array([[[[0.0, 200.0, 100.0]]]]), np.array([0.0, -80.0, -30.0])])
    folder = tmp_path_factory.mktemp("model")
    Predictor(model, PreprocessingSettings(image_size=32)).save(folder)
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    image, _ = body(num_slices=5, size=40)
    image = image[:, 3:, :37]  # unequal sizes, so that a wrong axis cannot go unseen
    geometry = volumes.kits_geometry(image.shape, (3.0, 0.8, 0.7))
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    volumes.write_image(path, image, geometry)
    return path


@pytest.fixture(scope="module")
def expected(model_folder, scan, tmp_path_factory):
    output = tmp_path_factory.mktemp("expected") / "seg.nii.gz"
    predict(PredictSettings(model=str(model_folder), image=str(scan), output=str(output)))
    label_map = np.asarray(nib.load(output).dataobj)
    assert {0, 1, 2} == set(np.unique(label_map))
    return label_map


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_geometry_round_trips(codes, scan, model_folder, expected, tmp_path):
    house = nib.load(scan)
    there = nib.orientations.ornt_transform(
        nib.io_orientation(house.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    nib.save(house.as_reoriented(there), tmp_path / "scan.nii.gz")
    turned = nib.load(tmp_path / "scan.nii.gz")
    assert "".join(nib.aff2axcodes(turned.affine)) == codes
    predict(
        PredictSettings(
            model=str(model_folder), image=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "seg.nii.gz")
        )
    )
    found = nib.load(tmp_path / "seg.nii.gz")
    assert found.shape == turned.shape
    np.testing.assert_array_equal(found.affine, turned.affine)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(found.dataobj), nib.orientations.apply_orientation(expected, there))


def test_the_overlay_and_the_volumes(scan, model_folder, expected, tmp_path):
    predicted = predict(
        PredictSettings(
            model=str(model_folder),
            image=str(scan),
            output=str(tmp_path / "new/seg.nii.gz"),
            overlay=str(tmp_path / "new/overlay.png"),
        )
    )
    assert (tmp_path / "new/overlay.png").read_bytes().startswith(b"\x89PNG")
    voxel_ml = 3.0 * 0.8 * 0.7 / 1000
    assert predicted.volumes_ml["tumour"] == pytest.approx((expected == 2).sum() * voxel_ml)
    assert predicted.volumes_ml["kidney"] == pytest.approx((expected > 0).sum() * voxel_ml)


def test_what_is_there_is_replaced_only_when_told(scan, model_folder, tmp_path):
    settings = {"model": str(model_folder), "image": str(scan), "output": str(tmp_path / "seg.nii.gz")}
    (tmp_path / "seg.nii.gz").write_text("mine")
    with pytest.raises(InputError, match=r"seg\.nii\.gz: exists"):
        predict(PredictSettings(**settings))
    assert (tmp_path / "seg.nii.gz").read_text() == "mine"
    predict(PredictSettings(**settings, overwrite=True))
    assert nib.load(tmp_path / "seg.nii.gz").shape == (5, 37, 37)


def test_air_alone_is_refused_by_name(model_folder, tmp_path):
    path = tmp_path / "air.nii.gz"
    volumes.write_image(path, np.full((3, 9, 9), -1000, np.int16), volumes.kits_geometry((3, 9, 9), (1, 1, 1)))
    with pytest.raises(InputError, match=r"air\.nii\.gz: no foreground"):
        predict(PredictSettings(model=str(model_folder), image=str(path), output=str(tmp_path / "seg.nii.gz")))
    assert not (tmp_path / "seg.nii.gz").exists()
