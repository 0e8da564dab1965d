"""The mean over networks and over mirrored slices, on the scan's grid; networks are functions."""

import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.errors import InputError
from kits_ml.inference.ensemble import Ensemble, align, describe_members
from kits_ml.inference.mirroring import MIRRORED_AXES, mean_over_mirrored
from kits_ml.inference.predictor import Predictor
from kits_ml.inference.segmenting import observe_all
from tests.conftest import body
from tests.inference.networks import Fake, by_brightness

SETTINGS = PreprocessingSettings(image_size=32)
SPACED = PreprocessingSettings(image_size=24, framing="spacing", pixel_spacing_mm=3.0, crop="body")
SPACING_MM = (3.0, 1.0, 1.0)


def _always(*probabilities: float) -> Fake:
    return Fake(lambda batch: np.broadcast_to(np.log(probabilities), (*batch.shape[:3], 3)))


def _seen(segmenter, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label map, and the probabilities `(slices, classes, rows, columns)` that were observed."""
    seen = np.zeros((len(image), 3, *image.shape[1:]), np.float32)
    seen[:, 0] = 1

    def observe(index, inside, probabilities):
        seen[index][:, *inside] = probabilities

    return segmenter.segment(image, spacing_mm=SPACING_MM, observe=observe), seen


def test_the_mean_is_taken_of_probabilities():
    image, _ = body()
    sure, unsure = Predictor(_always(0.05, 0.9, 0.05), SETTINGS), Predictor(_always(0.3, 0.2, 0.5), SETTINGS)
    label_map, seen = _seen(Ensemble([sure, unsure, unsure]), image)
    # kidney (0.9 + 0.2 + 0.2) / 3, tumour (0.05 + 0.5 + 0.5) / 3: kidney wins, though two of three say tumour
    inside = seen[:, 0] < 1
    assert inside.any()
    np.testing.assert_allclose(seen[:, 1][inside], 1.3 / 3, atol=1e-6)
    np.testing.assert_allclose(seen[:, 2][inside], 1.05 / 3, atol=1e-6)
    np.testing.assert_array_equal(label_map, inside)


def test_members_may_prepare_and_see_differently():
    image, label_map_true = body(num_slices=9)
    members = [
        Predictor(by_brightness(), SETTINGS, batch_size=4),
        Predictor(by_brightness(), SPACED, description={"input_slices": 3}, batch_size=2),
    ]
    label_map, seen = _seen(Ensemble(members), image)
    alone = [_seen(one, image)[1] for one in members]
    np.testing.assert_allclose(seen, np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(label_map, seen.argmax(axis=1))
    assert not np.allclose(alone[0], alone[1], atol=0.1)
    kidney = label_map_true > 0
    assert 2 * (kidney & (label_map > 0)).sum() / (kidney.sum() + (label_map > 0).sum()) > 0.8


def test_a_member_twice_says_the_same():
    image, _ = body()
    one = Predictor(by_brightness(), SETTINGS)
    np.testing.assert_array_equal(Ensemble([one, one]).segment(image), one.segment(image))


def test_beyond_its_window_a_member_says_background():
    small, large = np.full((3, 1, 2), 1 / 3, np.float32), np.zeros((3, 3, 4), np.float32)
    large[1] = 1
    window, aligned = align([((slice(5, 6), slice(2, 4)), small), ((slice(4, 7), slice(0, 4)), large)])
    assert window == (slice(4, 7), slice(0, 4))
    expected = np.zeros((3, 3, 4))
    expected[0], expected[1] = 0.5, 0.5  # one says kidney, the other background
    expected[:, 1, 2:] = [[1 / 6] * 2, [2 / 3] * 2, [1 / 6] * 2]
    np.testing.assert_allclose(aligned.mean(axis=0), expected, atol=1e-6)


def test_members_must_agree_on_labels():
    ours = {"label_names": {"0": "background", "1": "kidney", "2": "tumour"}}
    theirs = {"label_names": {"0": "background", "1": "tumour", "2": "kidney"}}
    assert describe_members([ours, {}]) == describe_members([{}, ours])
    with pytest.raises(
        InputError, match=r"ensemble: model 3 has the labels .*'1': 'tumour'.*, expected .*'1': 'kidney'"
    ):
        describe_members([ours, {}, theirs])
    with pytest.raises(InputError, match=r"members with \[2, 3\] classes"):
        align([((slice(1), slice(1)), np.ones((n, 1, 1), np.float32)) for n in (2, 3)])


def test_what_any_has_seen_all_have_seen():
    first = {"seen_cases": {"case_00001": "a", "case_00002": "b"}, "architecture": "unet", "run_id": "r1"}
    second = {"seen_cases": {"case_00001": "c"}, "architecture": "unet", "run_id": "r2"}
    found = describe_members([first, second])
    assert set(found["seen_cases"].values()) == {"a", "b", "c"}
    assert (found["architecture"], found["run_id"]) == ("unet", "r1, r2")
    stored = {"keep_largest_kidneys": 2}
    assert describe_members([{"postprocessing": stored}] * 2)["postprocessing"] == stored
    assert "postprocessing" not in describe_members([{"postprocessing": stored}, {}])


def test_the_members_spread_is_told_to_who_asks():
    class Meter:
        def __init__(self):
            self.variance = {}

        def __call__(self, index, inside, probabilities):
            assert len(self.variance) == index + 1

        def add_variance(self, index, inside, variance):
            self.variance[index] = variance

    image, _ = body()
    ensemble = Ensemble([Predictor(_always(0.1, 0.8, 0.1), SETTINGS), Predictor(_always(0.5, 0.2, 0.3), SETTINGS)])
    meter, seen = Meter(), []
    ensemble.segment(image, observe=observe_all(meter, lambda *given: seen.append(given)))
    assert len(seen) == len(meter.variance) == len(image)
    # of two values the variance is a quarter of the squared difference: 0.4, 0.6 and 0.2
    expected = np.array([0.04, 0.09, 0.01])[:, None, None]
    np.testing.assert_allclose(meter.variance[0], np.broadcast_to(expected, meter.variance[0].shape), atol=1e-6)


def test_an_error_comes_from_any_member():
    image, _ = body()
    with pytest.raises(InputError, match="spacing_mm: found none"):
        Ensemble([Predictor(by_brightness(), one) for one in (SETTINGS, SPACED)]).segment(image)


@pytest.mark.parametrize(("augmentation", "passes"), [("none", 1), ("flip_left_right", 2), ("flip_all", 4)])
def test_a_network_is_asked_about_mirrored_slices(augmentation, passes):
    network = by_brightness()
    batch = np.random.default_rng(0).random((2, 5, 6, 1), np.float32)
    found = mean_over_mirrored(network.predict_on_batch, batch, augmentation)
    # what depends on a pixel alone is the same in a mirror
    np.testing.assert_allclose(found, by_brightness().predict_on_batch(batch), atol=1e-6)
    assert network.num_calls == passes


def test_the_answers_are_mirrored_back():
    """A network that says tumour in the first columns, whatever it sees: mirrored, it says so of the last."""
    batch = np.zeros((1, 4, 6, 1), np.float32)

    def left_is_tumour(batch):
        answer = np.zeros((*batch.shape[:3], 3), np.float32)
        answer[..., 0] = 1
        answer[:, 0, :2] = (0, 0, 1)
        return answer

    tumour = mean_over_mirrored(left_is_tumour, batch, "flip_left_right")[0, ..., 2]
    np.testing.assert_array_equal(tumour[0], [0.5, 0.5, 0, 0, 0.5, 0.5])
    assert not tumour[1:].any()
    corners = mean_over_mirrored(left_is_tumour, batch, "flip_all")[0, ..., 2]
    np.testing.assert_array_equal(corners[[0, -1]], [[0.25, 0.25, 0, 0, 0.25, 0.25]] * 2)
    assert mean_over_mirrored(left_is_tumour, batch, "flip_all").sum(axis=-1).tolist() == np.ones((1, 4, 6)).tolist()


@pytest.mark.parametrize("augmentation", MIRRORED_AXES)
def test_mirroring_goes_with_the_scan(augmentation):
    """The prediction of a mirrored scan is the mirrored prediction, whatever the network, and not without."""
    image = np.random.default_rng(0).integers(1, 250, (3, 32, 32)).astype(np.int16)  # fills the square as it is
    weights = np.random.default_rng(1).normal(0, 3, (3, 32, 32))
    network = Fake(lambda batch: np.moveaxis(weights[:, None] * batch[..., 0], 0, -1))  # sides matter to it
    predictor = Predictor(network, SETTINGS, test_time_augmentation=augmentation)
    mirrored = np.flip(predictor.segment(np.flip(image, 2)), 2)
    same = (mirrored == predictor.segment(image)).mean()
    assert same > 0.999 if augmentation != "none" else same < 0.6


def test_several_can_observe():
    told = []
    first, second = (lambda *given, name=name: told.append((name, given)) for name in "ab")
    observe_all(first, None, second)(3, "window", "probabilities")
    assert told == [("a", (3, "window", "probabilities")), ("b", (3, "window", "probabilities"))]
    assert observe_all(None) is None
    assert observe_all(None, first) is first
