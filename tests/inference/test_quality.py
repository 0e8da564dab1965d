"""Each flag is raised by a case that deserves it and by no other; the report survives JSON."""

import json
import re

import numpy as np
import pytest

from kits_ml.config import QualitySettings
from kits_ml.data import training_range
from kits_ml.errors import InputError
from kits_ml.inference import flags
from kits_ml.inference.provenance import ModelSource, Provenance
from kits_ml.inference.quality import QualityReport, assess
from kits_ml.inference.uncertainty import UncertaintyMeter

#: 5 x 5 x 5 mm: a voxel is an eighth of a millilitre.
SPACING_MM = (5.0, 5.0, 5.0)
SHAPE = (24, 40, 60)
RIGHT, LEFT = (slice(6, 16), slice(15, 25), slice(12, 22)), (slice(6, 16), slice(15, 25), slice(38, 48))
TUMOUR = (slice(8, 12), slice(18, 22), slice(44, 50))

TRAINING = {
    "num_cases": 40,
    "spacing_mm": {"low": [0.5, 4.0, 4.0], "high": [5.0, 5.0, 5.0]},
    "field_of_view_mm": {"low": [100, 190, 250], "high": [400, 400, 400]},
    "hu": {"low": {"p05": -1024, "p50": -900, "p95": 30}, "high": {"p05": -900, "p50": 40, "p95": 90}},
    "kidney_hu": {"low": 90, "high": 200},
}


def _scan() -> tuple[np.ndarray, np.ndarray]:
    """Two kidneys of 10 x 10 x 10 voxels, 125 ml each, the left one with a tumour of 4 x 4 x 6 (a third outside)."""
    image = np.full(SHAPE, -1000, np.int16)
    image[:, 5:35, 5:55] = 40
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[RIGHT] = label_map[LEFT] = 1
    label_map[TUMOUR] = 2
    image[label_map == 1] = 150
    image[label_map == 2] = 80
    return image, label_map


def _assess(image, label_map, **options) -> QualityReport:
    return assess(image, label_map, **{"spacing_mm": SPACING_MM, "training": TRAINING, **options})


def _names(report: QualityReport) -> list[str]:
    return [flag.name for flag in report.flags]


def test_a_good_prediction():
    report = _assess(*_scan(), uncertainty=UncertaintyMeter(SHAPE))
    assert report.flags == ()
    # 2 x 1000 voxels, and 4 x 4 x 2 = 32 of the tumour outside, of an eighth each
    assert report.volumes_ml == pytest.approx({"kidney": 254, "tumour": 12})
    assert [one.side for one in report.kidneys] == ["right", "left"]
    assert report.tumours[0].kidney == 1
    assert (report.kidney_hu, report.contrast) == (150, "strong")
    assert report.doubt["tumour"] == {"confidence": 1.0, "entropy": 0.0}


def _no_kidney(image, label_map):
    label_map[:] = 0
    return {}


def _only_crumbs(image, label_map):
    label_map[:] = 0
    label_map[10, 10, 10:20] = 1  # 10 voxels: 1.25 ml
    return {}


def _one_kidney(image, label_map):
    label_map[RIGHT] = 0
    return {}


def _three_kidneys(image, label_map):
    label_map[18:23, 15:25, 12:22] = 1
    image[label_map == 1] = 150
    return {}


def _joined(image, label_map):
    label_map[10, 20, 22:38] = 1
    return {}


def _one_side(image, label_map):
    label_map[LEFT] = label_map[TUMOUR] = 0
    label_map[6:16, 28:34, 12:22] = 1
    image[label_map == 1] = 150
    return {}


def _cut_off(image, label_map):
    label_map[:6, 18:22, 15:19] = 1
    return {}


def _small_kidney(image, label_map):
    label_map[RIGHT] = 0
    label_map[8:15, 15:22, 12:19] = 1  # 7 x 7 x 7 / 8 = 42.9 ml
    return {}


def _large_kidney(image, label_map):
    label_map[2:22, 8:28, 10:22] = 1  # 20 x 20 x 12 / 8 = 600 ml
    image[label_map == 1] = 150
    return {"training": None}  # so much kidney is bright too


def _large_tumour(image, label_map):
    return {"settings": QualitySettings(highest_tumour_ml=10)}


def _lone_tumour(image, label_map):
    label_map[2:4, 30:32, 30:32] = 2  # 8 voxels: 1 ml
    return {}


def _plain_scan(image, label_map):
    image[label_map == 1] = 35
    return {"training": None}


def _unsure_of_kidney(image, label_map):
    meter = UncertaintyMeter(SHAPE)
    meter.confidence[label_map == 1] = 178  # 0.698
    return {"uncertainty": meter}


def _unsure_of_tumour(image, label_map):
    meter = UncertaintyMeter(SHAPE)
    meter.confidence[label_map == 2] = 140  # 0.549
    return {"uncertainty": meter}


def _not_hu(image, label_map):
    image += 1024  # as stored by scanners
    return {}


def _other_kidney_hu(image, label_map):
    image[label_map == 1] = 260
    return {}


def _thick(image, label_map):
    return {"spacing_mm": (8.0, 5.0, 5.0)}


def _narrow(image, label_map):
    # 60 columns of 3.7 mm cover 222 mm, of which 250 * 0.9 = 225 are wanted; 3.7 is within 4.0 * 0.9 = 3.6
    return {"spacing_mm": (5.0, 5.0, 3.7)}


RAISED = [
    (_no_kidney, "no_kidney", "Nothing was found: neither kidney nor tumour."),
    (
        _only_crumbs,
        "no_kidney",
        "expected a piece with at least 15 ml of its tissue; there are 1.2 ml of kidney in fragments",
    ),
    (_one_kidney, "one_kidney", r"Only the left kidney was found \(129 ml\), expected two"),
    (_three_kidneys, "more_than_two_kidneys", r"3 separate kidneys were found \(.*\), expected two"),
    (_joined, "kidneys_joined", "piece of 256 ml lies on both sides"),
    (_one_side, "kidneys_on_one_side", "Both kidneys lie on the right side"),
    (_cut_off, "kidney_cut_off", "The right kidney reaches the scan's first or last slice"),
    (_small_kidney, "implausible_kidney_volume", "The right kidney measures 43 ml, expected at least 50 ml"),
    (
        _large_kidney,
        "implausible_kidney_volume",
        "The right kidney measures 600 ml without its tumour, expected at",
    ),
    (_large_tumour, "implausible_tumour_volume", "Tumour 1 measures 12 ml, expected at most 10 ml"),
    (_lone_tumour, "tumour_without_contact", r"Tumour 2 \(1.0 ml, slice 2\) touches no kidney"),
    (_plain_scan, "non_contrast", "The kidneys have 35 HU on average, expected more than 60 HU"),
    (_unsure_of_kidney, "low_confidence", "gives the right kidney 70% on average, expected at least 80%"),
    (_unsure_of_tumour, "low_confidence", "gives tumour 1 55% on average, expected at least 70%"),
    (
        _not_hu,
        "hu_outside_training",
        "5 percent of the voxels lie at or below 24 HU, but .* -1024 to -900 HU in its",
    ),
    (_other_kidney_hu, "hu_outside_training", "The kidneys have 260 HU on average, but .* 90 to 200 HU"),
    (
        _thick,
        "spacing_outside_training",
        "The slices are 8.00 mm apart, but .* 0.50 to 5.00 mm in its 40 training",
    ),
    (
        _narrow,
        "field_of_view_outside_training",
        "The columns cover 222 mm, but the model was trained on 250 to 400",
    ),
]


@pytest.mark.parametrize(("change", "name", "reason"), RAISED, ids=[change.__name__[1:] for change, _, _ in RAISED])
def test_a_flag_is_raised_for_its_reason_alone(change, name, reason):
    image, label_map = _scan()
    options = change(image, label_map)
    report = _assess(image, label_map, **options)
    assert set(_names(report)) == {name}
    assert any(re.search(reason, flag.reason) for flag in report.flags), report.flags
    for flag in report.flags:
        assert flag.reason.endswith(".")
        assert flag.severity == flags.FLAGS[name][0]


def test_every_flag_is_tried():
    assert {name for _, name, _ in RAISED} == set(flags.FLAGS)


def test_errors_come_first():
    image, label_map = _scan()
    label_map[:] = 0
    report = _assess(image + np.int16(1024), label_map)
    assert _names(report)[0] == "no_kidney"
    assert "hu_outside_training" in _names(report)


def test_what_the_model_does_not_say_is_not_looked_at():
    image, label_map = _scan()
    for training in (None, {}, {"num_cases": 3}):
        report = _assess(image + np.int16(30), label_map, spacing_mm=(5, 5, 6), training=training)
        assert not report.flags
        reasons = {one.name: one.reason for one in report.unchecked}
        assert set(reasons) == {
            *("hu_outside_training", "spacing_outside_training", "field_of_view_outside_training", "low_confidence")
        }
        assert reasons["spacing_outside_training"] == "It is not known on what spacings the model was trained."
        assert reasons["low_confidence"] == "It is not known how sure the model was."
    assert _assess(image, label_map, uncertainty=UncertaintyMeter(SHAPE)).unchecked == ()


def test_without_a_kidney_what_looks_at_kidneys_is_not_checked():
    image, label_map = _scan()
    report = _assess(image, np.zeros_like(label_map), uncertainty=UncertaintyMeter(SHAPE))
    assert [one.name for one in report.unchecked] == ["non_contrast", "hu_outside_training"]


def _two_models(**others) -> dict:
    return training_range.common_range([TRAINING, {**TRAINING, **others}])


def test_models_that_have_nothing_in_common():
    # the one saw slices up to 5 mm apart, the other from 6 mm on: with a margin of a tenth, 5.4 to 5.5 suits both
    apart = _two_models(spacing_mm={"low": [6.0, 4.0, 4.0], "high": [9.0, 5.0, 5.0]})
    for slice_mm, num_flags in [(5.0, 1), (5.45, 0), (7.0, 1)]:
        report = _assess(*_scan(), spacing_mm=(slice_mm, 5.0, 5.0), training=apart)
        assert len(report.flags) == num_flags
    (flag,) = report.flags
    assert flag.reason == (
        "The slices are 7.00 mm apart, but the training data of all 2 models have no such value in common."
    )


def test_a_model_that_says_nothing_is_named():
    silent = training_range.common_range([TRAINING, None, {}, {"kidney_hu": {"low": 100, "high": 220}}])
    image, label_map = _scan()
    report = _assess(
        image, label_map, spacing_mm=(8.0, 5.0, 5.0), training=silent, uncertainty=UncertaintyMeter(SHAPE)
    )
    (flag,) = report.flags  # what one says still counts
    assert flag.reason.endswith("but the training data of 1 of 4 models have only 0.50 to 5.00 mm in common.")
    assert [(one.name, one.reason) for one in report.unchecked] == [
        ("hu_outside_training", "It is not known on what HU of whole scans 3 of the 4 models were trained."),
        ("hu_outside_training", "It is not known on what HU of kidneys 2 of the 4 models were trained."),
        ("spacing_outside_training", "It is not known on what spacings 3 of the 4 models were trained."),
        ("field_of_view_outside_training", "It is not known on what fields of view 3 of the 4 models were trained."),
    ]
    image[label_map == 1] = 260
    (flag,) = _assess(image, label_map, training=silent).flags
    # 90 to 200 and 100 to 220
    assert flag.reason.endswith("but the training data of 2 of 4 models have only 100 to 200 HU in common.")


def test_the_report_survives_json():
    image, label_map = _scan()
    label_map[2:4, 30:32, 30:32] = 2
    label_map[20, 20, 30] = 1
    meter = UncertaintyMeter(SHAPE)
    meter.add_variance(0, (slice(0, 4), slice(0, 4)), np.full((3, 4, 4), 0.01))
    provenance = Provenance(
        scan="a.nii.gz",
        models=(ModelSource(address="models:/net/3", sha256={"model.keras": "00"}),),
        engine="keras",
        test_time_augmentation="none",
        postprocessing={"tumour_contact_mm": None},
    )
    training = {"spacing_mm": TRAINING["spacing_mm"]}
    report = _assess(image, label_map, uncertainty=meter, training=training, provenance=provenance)
    values = report.to_dict()
    again = QualityReport.from_dict(json.loads(json.dumps(values, allow_nan=False)))
    assert again.to_dict() == values
    assert again.flags == report.flags
    assert again.unchecked == report.unchecked
    assert report.unchecked[0].name == values["unchecked"][0]["name"] == "hu_outside_training"
    assert again.provenance == provenance
    assert QualitySettings.from_mapping(values["limits"]) == QualitySettings()
    assert again.kidneys[0].side == "right"
    assert again.fragments == report.fragments
    assert "not a medical device" in values["notice"]


def test_an_empty_report_survives_json():
    image, label_map = _scan()
    report = _assess(image, np.zeros_like(label_map), uncertainty=UncertaintyMeter(SHAPE))
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["kidney_hu"] is None
    assert values["doubt"]["kidney"] == {"confidence": None, "entropy": None}
    assert QualityReport.from_dict(values) == report
    with pytest.raises(InputError, match="found format 99, expected 2"):
        QualityReport.from_dict({**values, "format": 99})


def test_a_prediction_of_another_scan():
    image, label_map = _scan()
    with pytest.raises(InputError, match=r"label map of shape \(23, 40, 60\) and image of shape \(24, 40, 60\)"):
        _assess(image, label_map[1:])
    with pytest.raises(InputError, match=r"spacing_mm: found .*, expected three positive numbers"):
        _assess(image, label_map, spacing_mm=(1, 0, 1))
    with pytest.raises(InputError, match="uncertainty of shape"):
        _assess(image, label_map, uncertainty=UncertaintyMeter((1, 2, 3)))


def test_limits_that_contradict_each_other():
    with pytest.raises(InputError, match="lowest_kidney_ml: found 10, expected at least fragment_kidney_ml 15"):
        QualitySettings(lowest_kidney_ml=10.0)
    with pytest.raises(InputError, match=r"highest_tumour_ml: found 0\.05, expected more than fragment"):
        QualitySettings(highest_tumour_ml=0.05)
