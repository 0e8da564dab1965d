"""The production path stands in MONAI's Compose and agrees with the literal chain."""

import numpy as np
from monai import transforms

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, preprocessing
from kits_ml.data.transforms import PrepareSlicesd
from tests.conftest import body

SETTINGS = PreprocessingSettings(image_size=32)


def test_it_stands_in_compose_and_agrees_with_the_chain():
    image, label_map = body(size=61)
    case = {"image": image, "label": label_map, "name": "case_00000"}
    ours = transforms.Compose([PrepareSlicesd(SETTINGS), transforms.ToTensord(["image", "label"])])(case)
    theirs = preprocessing.monai_chain(SETTINGS)({"image": image.astype(np.float32), "label": label_map})
    assert ours["name"] == "case_00000"
    # a grey value is 1/255; ours is rounded to one, theirs is not
    np.testing.assert_allclose(np.asarray(ours["image"]), np.asarray(theirs["image"]), atol=1.01 / 255)
    np.testing.assert_array_equal(np.asarray(ours["label"]), np.asarray(theirs["label"]))


def test_after_monais_own_reader(real_data):
    (case,) = cases.find_cases(real_data / "ircadb")
    settings = PreprocessingSettings(image_size=64)
    paths = {"image": case.image_path, "label": case.labels_path}
    compose = transforms.Compose([transforms.LoadImaged(["image", "label"]), PrepareSlicesd(settings)])
    ours, theirs = compose(paths), preprocessing.monai_chain(settings, load=True)(paths)
    assert (np.abs(ours["image"] - np.asarray(theirs["image"])) <= 1.01 / 255).mean() >= 0.999
    np.testing.assert_array_equal(ours["label"], np.asarray(theirs["label"]))


def test_it_is_undone_on_the_cases_grid():
    image, label_map = body(size=48)
    transform = PrepareSlicesd(SETTINGS)
    prepared = transform({"image": image, "label": label_map})
    restored = transform.inverse(prepared, np.eye(3, dtype=np.float32)[prepared["label"]])
    assert restored.shape == label_map.shape
    both = ((restored > 0) & (label_map > 0)).sum()
    assert 2 * both / ((restored > 0).sum() + (label_map > 0).sum()) > 0.95


def test_a_label_is_no_must():
    assert "label" not in PrepareSlicesd(SETTINGS)({"image": body()[0]})
