"""The mean over networks and over mirrored slices, on the scan's grid; networks are functions."""

import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.errors import InputError
from kits_ml.inference import mirroring
from kits_ml.inference.ensemble import Ensemble, align, describe_members, total_variance
from kits_ml.inference.mirroring import MIRRORED_AXES, moments_over_mirrored
from kits_ml.inference.predictor import Predictor
from kits_ml.inference.quality import assess
from kits_ml.inference.segmenting import observe_all
from kits_ml.inference.uncertainty import UncertaintyMeter
from tests.conftest import body
from tests.inference.networks import Fake, by_brightness

SETTINGS = PreprocessingSettings(image_size=32)
SPACED = PreprocessingSettings(image_size=24, framing="spacing", pixel_spacing_mm=3.0, crop="body")
SPACING_MM = (3.0, 1.0, 1.0)
BATCH = np.zeros((1, 4, 6, 1), np.float32)
#: Fills the square as it is: a pixel of the scan is one of the network.
SQUARE = np.random.default_rng(0).integers(1, 250, (3, 32, 32)).astype(np.int16)


def _always(*probabilities: float) -> Fake:
    return Fake(lambda batch: np.broadcast_to(np.log(probabilities), (*batch.shape[:3], 3)))


def _told(batch: np.ndarray, kidney: np.ndarray) -> np.ndarray:
    """Probabilities that depend on the column alone, whatever is seen: kidney, a trace of tumour, and background."""
    by_column = np.stack([1 - kidney, kidney, np.full(len(kidney), 1e-9)], axis=-1)
    return np.broadcast_to(by_column, (*batch.shape[:3], 3))


def _sided(left: float, right: float) -> Fake:
    """Says kidney with one probability in the left half of the columns, and another in the right half."""
    return Fake(lambda batch: np.log(_told(batch, np.where(np.arange(32) < 16, left, right))))


class _Meter:
    """Wants the variance, before each slice."""

    def __init__(self):
        self.variance = {}

    def __call__(self, index, inside, probabilities):
        assert len(self.variance) == index + 1

    def add_variance(self, index, inside, variance):
        self.variance[index] = variance


def _left_is_tumour(batch: np.ndarray) -> np.ndarray:
    """Calls the first two columns of the first row tumour."""
    answer = np.zeros((*batch.shape[:3], 3), np.float32)
    answer[..., 0] = 1
    answer[:, 0, :2] = (0, 0, 1)
    return answer


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


def test_a_scan_must_lie_in_the_range_of_each_member():
    """Of folds no two have the same: what is within the one and outside the other is told."""
    spacings_mm = [
        {"low": [0.5, 0.6, 0.6], "high": [5.0, 0.9, 0.9]},
        {"low": [1.0, 0.5, 0.5], "high": [3.0, 0.8, 0.8]},
    ]
    members = [{"training": {"num_cases": 40, "spacing_mm": one}} for one in spacings_mm]
    image = np.full((4, 32, 32), 40, np.int16)
    for training, spacing_mm, found in [
        (members[0]["training"], (5.0, 0.7, 0.7), []),
        (members[1]["training"], (5.0, 0.7, 0.7), ["3.00 mm in its 40 training cases."]),
        (
            describe_members(members)["training"],
            (5.0, 0.7, 0.7),
            ["all 2 models have only 1.00 to 3.00 mm in common."],
        ),
        (describe_members(members)["training"], (2.0, 0.7, 0.7), []),
    ]:
        report = assess(image, np.zeros(image.shape, np.uint8), spacing_mm=spacing_mm, training=training)
        reasons = [one.reason for one in report.flags if one.name == "spacing_outside_training"]
        assert len(reasons) == len(found)
        for reason, end in zip(reasons, found, strict=True):
            assert reason.startswith("The slices are 5.00 mm apart, but ")
            assert reason.endswith(end)
    assert "training" not in describe_members([{}, {"training": None}])


def test_the_members_spread_is_told_to_who_asks():
    image, _ = body()
    ensemble = Ensemble([Predictor(_always(0.1, 0.8, 0.1), SETTINGS), Predictor(_always(0.5, 0.2, 0.3), SETTINGS)])
    meter, seen = _Meter(), []
    ensemble.segment(image, observe=observe_all(meter, lambda *given: seen.append(given)))
    assert len(seen) == len(meter.variance) == len(image)
    # of two values the variance is a quarter of the squared difference: 0.4, 0.6 and 0.2
    expected = np.array([0.04, 0.09, 0.01])[:, None, None]
    np.testing.assert_allclose(meter.variance[0], np.broadcast_to(expected, meter.variance[0].shape), atol=1e-6)


def test_the_spread_over_the_passes_is_told_to_who_asks():
    meter, seen = _Meter(), []
    predictor = Predictor(_sided(0.9, 0.3), SETTINGS, batch_size=2, test_time_augmentation="flip_left_right")
    predictor.segment(SQUARE, observe=observe_all(meter, lambda *given: seen.append(given)))
    # everywhere the passes say 0.9 and 0.3 of kidney, the rest background: mean 0.6, both 0.3 away from it
    assert len(seen) == len(meter.variance) == 3
    for index in range(3):
        np.testing.assert_allclose(seen[index][2][1], np.full((32, 32), 0.6), atol=1e-6)
        for label, variance in enumerate([0.09, 0.09, 0]):
            np.testing.assert_allclose(meter.variance[index][label], np.full((32, 32), variance), atol=1e-6)


def test_the_spread_lies_on_the_scans_grid():
    """A network of 16 columns that says another thing in its first four, seen in a scan of 32 columns."""
    network = Fake(lambda batch: np.log(_told(batch, np.where(np.arange(16) < 4, 0.9, 0.5))))
    predictor = Predictor(network, PreprocessingSettings(image_size=16), test_time_augmentation="flip_all")
    meter = UncertaintyMeter(SQUARE.shape)
    predictor.segment(SQUARE, observe=meter)
    # at either end two of four passes say 0.9, two 0.5: variance 0.04 of two classes, sqrt(0.08 / (2/3)) = 0.3464
    # a pixel of the network lies on every other column; between 0.04 and 0 is 0.02, sqrt(0.04 / (2/3)) = 0.2449
    by_column = [88] * 7 + [62] + [0] * 15 + [62] + [88] * 8
    np.testing.assert_array_equal(meter.spread, np.broadcast_to(by_column, SQUARE.shape))


def test_no_more_than_a_batch_is_asked_for_at_once():
    network = _sided(0.9, 0.3)
    predictor = Predictor(network, SETTINGS, batch_size=1, test_time_augmentation="flip_all")
    moments = predictor.moments(SQUARE)
    for num_slices in (1, 2, 3):
        next(moments)
        assert network.num_calls == 4 * num_slices


def test_one_pass_has_no_spread():
    meter = UncertaintyMeter(SQUARE.shape)
    Predictor(_sided(0.9, 0.3), SETTINGS).segment(SQUARE, observe=meter)
    assert meter.spread is None


def test_nothing_more_is_computed_where_nobody_asks(monkeypatch):
    asked = []
    whole = mirroring.moments_over_mirrored

    def watched(*given, with_variance):
        asked.append(with_variance)
        return whole(*given, with_variance=with_variance)

    monkeypatch.setattr(mirroring, "moments_over_mirrored", watched)
    predictor = Predictor(_sided(0.9, 0.3), SETTINGS, test_time_augmentation="flip_left_right")
    for one in (predictor, Ensemble([predictor, predictor])):
        one.segment(SQUARE)
        one.segment(SQUARE, observe=observe_all(lambda *_: None, lambda *_: None))
        list(one.probabilities(SQUARE))
    assert not any(asked)
    predictor.segment(SQUARE, observe=_Meter())
    assert asked[-1]


def test_members_vary_in_themselves_and_from_each_other():
    augmented = {"test_time_augmentation": "flip_left_right"}
    members = [
        Predictor(_sided(0.9, 0.3), SETTINGS, **augmented),
        Predictor(_sided(0.2, 0.2), SETTINGS, **augmented),
        Predictor(_sided(0.1, 0.7), SETTINGS),  # asked once
    ]
    meter = _Meter()
    Ensemble(members).segment(SQUARE, observe=meter)
    kidney = meter.variance[1][1]
    # left: means 0.6, 0.2, 0.1, of variance 0.14 / 3 around 0.3; within 0.09, 0, 0, on average 0.03
    np.testing.assert_allclose(kidney[:, :16], np.full((32, 16), 0.14 / 3 + 0.03), atol=1e-6)
    # right: 0.6, 0.2, 0.7 lie 0.1, 0.3 and 0.2 from 0.5: the same 0.14 / 3
    np.testing.assert_allclose(kidney[:, 16:], np.full((32, 16), 0.14 / 3 + 0.03), atol=1e-6)


def test_beyond_its_window_a_member_does_not_vary():
    certain = np.zeros((3, 1, 2), np.float32)
    certain[0] = 1
    small = ((slice(5, 6), slice(2, 4)), certain, np.full((3, 1, 2), 0.08, np.float32))
    background = np.zeros((3, 3, 4), np.float32)
    background[0] = 1
    large = ((slice(4, 7), slice(0, 4)), background, None)
    window, aligned = align([small[:2], large[:2]])
    found = total_variance([small, large], window, aligned)
    expected = np.zeros((3, 3, 4))
    expected[:, 1, 2:] = 0.04  # of two members one varies by 0.08; both have the same mean
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_an_error_comes_from_any_member():
    image, _ = body()
    with pytest.raises(InputError, match="spacing_mm: found none"):
        Ensemble([Predictor(by_brightness(), one) for one in (SETTINGS, SPACED)]).segment(image)


@pytest.mark.parametrize(("augmentation", "passes"), [("none", 1), ("flip_left_right", 2), ("flip_all", 4)])
def test_a_network_is_asked_about_mirrored_slices(augmentation, passes):
    network = by_brightness()
    batch = np.random.default_rng(0).random((2, 5, 6, 1), np.float32)
    found, variance = moments_over_mirrored(network.predict_on_batch, batch, augmentation)
    # what depends on a pixel alone is the same in a mirror
    np.testing.assert_allclose(found, by_brightness().predict_on_batch(batch), atol=1e-6)
    assert network.num_calls == passes
    assert variance is None  # nobody asked


def test_the_answers_are_mirrored_back():
    """A network that says tumour in the first columns, whatever it sees: mirrored, it says so of the last."""
    mean, _ = moments_over_mirrored(_left_is_tumour, BATCH, "flip_left_right")
    tumour = mean[0, ..., 2]
    np.testing.assert_array_equal(tumour[0], [0.5, 0.5, 0, 0, 0.5, 0.5])
    assert not tumour[1:].any()
    mean, _ = moments_over_mirrored(_left_is_tumour, BATCH, "flip_all")
    np.testing.assert_array_equal(mean[0, [0, -1], :, 2], [[0.25, 0.25, 0, 0, 0.25, 0.25]] * 2)
    assert mean.sum(axis=-1).tolist() == np.ones((1, 4, 6)).tolist()


def test_the_variance_is_over_the_passes():
    def variance(augmentation):
        return moments_over_mirrored(_left_is_tumour, BATCH, augmentation, with_variance=True)[1]

    # two passes say 1 and 0: mean 1/2, both half away from it, variance 1/4; in the middle both say 0
    found = variance("flip_left_right")
    np.testing.assert_array_equal(found[0, 0], np.array([[1, 0, 1]] * 2 + [[0, 0, 0]] * 2 + [[1, 0, 1]] * 2) / 4)
    assert not found[0, 1:].any()
    # one of four says 1: mean 1/4, squares (9 + 1 + 1 + 1) / 16, over four passes 3/16
    np.testing.assert_allclose(variance("flip_all")[0, [0, -1], :, 2], [[3 / 16] * 2 + [0] * 2 + [3 / 16] * 2] * 2)
    assert variance("none") is None


def test_the_variance_is_that_of_the_answers():
    answers = np.random.default_rng(0).random((4, 2, 5, 6, 3), np.float32)
    told = iter(answers)
    _, found = moments_over_mirrored(lambda batch: next(told), np.zeros((2, 5, 6, 1)), "flip_all", with_variance=True)
    back = [np.flip(answer, axes) for answer, axes in zip(answers, MIRRORED_AXES["flip_all"], strict=True)]
    np.testing.assert_allclose(found, np.var(back, axis=0), atol=1e-6)


@pytest.mark.parametrize("augmentation", MIRRORED_AXES)
def test_mirroring_goes_with_the_scan(augmentation):
    """The prediction of a mirrored scan is the mirrored prediction, whatever the network, and not without."""
    weights = np.random.default_rng(1).normal(0, 3, (3, 32, 32))
    network = Fake(lambda batch: np.moveaxis(weights[:, None] * batch[..., 0], 0, -1))  # sides matter to it
    predictor = Predictor(network, SETTINGS, test_time_augmentation=augmentation)
    mirrored = np.flip(predictor.segment(np.flip(SQUARE, 2)), 2)
    same = (mirrored == predictor.segment(SQUARE)).mean()
    assert same > 0.999 if augmentation != "none" else same < 0.6


def test_several_can_observe():
    told = []
    first, second = (lambda *given, name=name: told.append((name, given)) for name in "ab")
    observe_all(first, None, second)(3, "window", "probabilities")
    assert told == [("a", (3, "window", "probabilities")), ("b", (3, "window", "probabilities"))]
    assert observe_all(None) is None
    assert observe_all(None, first) is first
