"""A model is named so that it can be found again, wherever it came from."""

import json

import pytest

import kits_ml
from kits_ml.inference.provenance import ModelSource, Provenance

FILES = {"model.keras": "0123456789abcdef", "model.json": "ff"}


@pytest.mark.parametrize(
    ("address", "name", "version"),
    [
        ("models:/kits-unet/3", "kits-unet", "3"),
        ("models:/m-0815", "m-0815", "sha256 0123456789ab"),
        ("runs:/4711/model", "4711/model", "sha256 0123456789ab"),
        ("mine", "mine", "sha256 0123456789ab"),
    ],
)
def test_name_and_version(address, name, version):
    source = ModelSource(address=address, sha256=FILES)
    assert (source.name, source.version) == (name, version)


def test_an_ensemble_is_named_by_all_its_models():
    models = (ModelSource(address="models:/a/3", sha256=FILES), ModelSource(address="b", sha256={}))
    provenance = Provenance(
        scan="scan.nii.gz", models=models, engine="keras", test_time_augmentation="none", postprocessing={}
    )
    assert (provenance.algorithm_name, provenance.algorithm_version) == ("kits_ml a, b", "3, unknown")
    values = json.loads(json.dumps(provenance.to_dict()))
    assert values["models"][0] == {"address": "models:/a/3", "sha256": FILES, "version": "3"}
    assert values["kits_ml"] == kits_ml.__version__
    assert Provenance.from_dict(values) == provenance
