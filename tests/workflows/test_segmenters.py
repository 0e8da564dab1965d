"""Models by their addresses, and whose post-processing is used; the networks are functions."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import kits_ml
from kits_ml.config import EvaluateSettings, PredictSettings, PreprocessingSettings
from kits_ml.data import volumes
from kits_ml.errors import InputError
from kits_ml.inference.ensemble import Ensemble
from kits_ml.tracking import addresses
from kits_ml.workflows.predict import outputs_of
from kits_ml.workflows.segmenters import load_segmenter
from tests.conftest import body

FILES = {"image": "scan.nii.gz", "output": "seg.nii.gz"}


def test_a_scan_is_segmented_from_python(fake_model, tmp_path):
    image, label_map = body()
    flat = nib.Nifti1Image(image, volumes.kits_geometry(image.shape, (3.0, 1.0, 1.0)).affine)
    nib.save(nib.as_closest_canonical(flat), tmp_path / "scan.nii.gz")  # RAS
    segmenter = kits_ml.load(str(fake_model("a")), batch_size=3)
    found = segmenter.segment_scan(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(found.label_map, segmenter.segment(image))
    kidney = (found.label_map > 0) & (label_map > 0)
    assert kidney.sum() > 0.8 * (label_map > 0).sum()
    assert found.volumes_ml["kidney"] == pytest.approx((found.label_map > 0).sum() * 3e-3)
    found.save(tmp_path / "seg.nii.gz")
    written = nib.load(tmp_path / "seg.nii.gz")
    assert nib.aff2axcodes(written.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(volumes.read_label_map(tmp_path / "seg.nii.gz").array, found.label_map)


def test_python_takes_the_settings_of_predict(fake_model):
    image, _ = body()
    cleaned = kits_ml.load(str(fake_model("a")), postprocessing="given", minimum_kidney_ml=1e6)
    assert not cleaned.segment(image, spacing_mm=(3.0, 1.0, 1.0)).any()
    with pytest.raises(InputError, match="spacing_mm: found none, expected three distances in mm"):
        cleaned.segment(image)
    with pytest.raises(InputError, match=r"load: .*batchsize"):
        kits_ml.load(str(fake_model("b")), batchsize=3)


def test_an_ensemble_of_different_preparations(fake_model):
    spaced = PreprocessingSettings(image_size=24, framing="spacing", pixel_spacing_mm=3.0).to_dict()
    models = f"{fake_model('a')},{fake_model('b', preprocessing=spaced, input_slices=3)}"
    settings = PredictSettings(**FILES, model=models, test_time_augmentation="flip_left_right", batch_size=3)
    segmenter = load_segmenter(models, settings)
    assert isinstance(segmenter.network, Ensemble)
    assert [one.batch_size for one in segmenter.network.members] == [3, 3]
    assert {one.test_time_augmentation for one in segmenter.network.members} == {"flip_left_right"}
    assert len(set(segmenter.digests())) == 4
    image, label_map = body()
    found = segmenter.segment(image, spacing_mm=(3.0, 1.0, 1.0))
    both = (found > 0) & (label_map > 0)
    assert 2 * both.sum() / ((found > 0).sum() + (label_map > 0).sum()) > 0.8


def test_models_are_those_of_the_moment_of_loading(fake_model, monkeypatch):
    folder = fake_model("a")
    monkeypatch.setattr(addresses, "pinned", lambda address: address.replace("@champion", "/3"))
    monkeypatch.setattr(addresses, "local_folder", lambda address: Path(folder))
    settings = PredictSettings(**FILES, test_time_augmentation="flip_all")
    segmenter = load_segmenter("models:/net@champion,somewhere/else/", settings)
    before = segmenter.digests()
    fake_model("a", content="other weights")
    provenance = segmenter.provenance(scan="scan.nii.gz", note="cut")
    assert [(one.address, one.version[:7]) for one in provenance.models] == [
        ("models:/net/3", "3"),
        ("else", "sha256 "),
    ]
    assert [digest for one in provenance.models for digest in one.sha256.values()] == before
    assert (provenance.test_time_augmentation, provenance.note) == ("flip_all", "cut")
    with pytest.raises(InputError, match="model: found models:/net/3 more than once"):
        load_segmenter("models:/net@champion,models:/net/3", settings)


def test_other_labels_are_refused(fake_model):
    names = {"0": "background", "1": "tumour", "2": "kidney"}
    models = f"{fake_model('a')},{fake_model('b', label_names=names)}"
    with pytest.raises(InputError, match="ensemble: model 2 has the labels"):
        load_segmenter(models, PredictSettings(**FILES))


def test_a_setting_that_would_be_passed_over_is_refused():
    with pytest.raises(InputError, match=r"tumour_contact_mm: found 0\.0 with postprocessing model"):
        PredictSettings(**FILES, tumour_contact_mm=0.0)
    with pytest.raises(InputError, match="keep_largest_kidneys: found 2 with postprocessing model"):
        EvaluateSettings(keep_largest_kidneys=2)
    assert PredictSettings(**FILES, postprocessing="given", tumour_contact_mm=0.0).tumour_contact_mm == 0


def test_mirrored_slices_cost_passes(fake_model):
    image, _ = body(num_slices=4)
    calls = {}
    for augmentation in ("none", "flip_left_right", "flip_all"):
        model = fake_model(augmentation)
        settings = PredictSettings(**FILES, test_time_augmentation=augmentation, batch_size=2)
        segmenter = load_segmenter(model, settings)
        label_map = segmenter.segment(image, spacing_mm=(3.0, 1.0, 1.0))
        calls[augmentation] = segmenter.network.model.num_calls
        assert np.isin(label_map, (0, 1, 2)).all()
    assert calls == {"none": 2, "flip_left_right": 4, "flip_all": 8}


def test_each_output_has_a_name_of_its_own():
    with pytest.raises(InputError, match=r"output, probabilities: found a\.nii, a\.nii, expected a name for each"):
        outputs_of(PredictSettings(image="scan.nii.gz", output="a.nii", probabilities="a.nii"))
    with pytest.raises(InputError, match=r"a\.NII: expected a name for output that ends in \.nii\.gz or \.nii"):
        outputs_of(PredictSettings(image="scan.nii.gz", output="a.NII"))
