"""The card says what was measured, and what was not."""

import math

import pytest

from kits_ml.evaluation.summary import summarise_evaluation
from kits_ml.tracking import model_card
from kits_ml.tracking.model_card import Card
from tests.evaluation.gate_cases import evidence

SCORES = evidence({"case_00000": (0.9, 0.5), "case_00001": (0.8, 0.1), "case_00002": (0.7, 0.3)})
SUMMARY = summarise_evaluation(SCORES.cases)


def _card(**changes) -> Card:
    description = {
        **{"architecture": "unet", "run_id": "abc123", "data_digest": "0123456789abcdef", "input_slices": 1},
        **{"seen_cases": {"case_00003": "d", "case_00004": "e"}, "init_from": None},
        "training": {
            "spacing_mm": {"low": [1.0, 0.6, 0.6], "high": [5.0, 0.9, 0.9]},
            "kidney_hu": {"low": 90, "high": 200},
        },
    }
    values = {
        **{"name": "kits-unet", "description": description, "preprocessing": {"image_size": 256, "gamma": 1.5}},
        **{"data": "data/kits19", "num_cases": {"train": 2, "validation": 0, "test": 3}},
        **{"summaries": {"test": SUMMARY}, "digests": {"test": SCORES.digest}},
        **{"requirements": ["keras==3.15.1"], "onnx": None, "commit": "f00"},
    }
    return Card(**{**values, **changes})


def test_it_holds_purpose_data_numbers_with_intervals_and_limits():
    text = model_card.render(_card())
    kidney = SUMMARY["regions"]["kidney"]["dice"]
    # the mean of 0.9, 0.8 and 0.7
    assert f"0.800 [{kidney['ci_low']:.3f}, {kidney['ci_high']:.3f}]" in text
    for part in (
        "Research use only. Not a medical device",
        "0 background, 1 kidney, 2 tumour",
        "2 train, 0 validation, 3 test",
        "`0123456789abcdef`",
        "slices 1 to 5 mm apart, pixels of 0.6 to 0.9 mm",
        "90 to 200 HU on average",
        "| gamma | 1.5 |",
        f"Evaluation digest, test: `{SCORES.digest}`",
        "Few test patients (3)",
        "It missed 0 of",
        "Its worst test patient has a mean Dice of 0.450 (case_00001)",  # (0.8 + 0.1) / 2
        "`artifacts/model/model.onnx`",
        "keras==3.15.1",
        "MLflow run `abc123`",
    ):
        assert part in text, part


def test_what_is_missing_is_said():
    text = model_card.render(_card(summaries={}, digests={}, onnx="no operation for Erfc", commit=None))
    assert "None: the run scored no cases." in text
    assert "scored on no test patients" in text
    assert "no ONNX file (no operation for Erfc)" in text
    assert "code: `unknown`" in text


def test_a_single_patient_has_no_interval_and_an_undefined_metric_no_number():
    one = summarise_evaluation(evidence({"case_00000": (0.9, 0.5)}).cases)
    assert math.isnan(one["regions"]["kidney"]["hd95_mm"]["mean"])
    text = model_card.render(_card(summaries={"test": one}, digests={}))
    (row,) = [line for line in text.splitlines() if line.startswith("| test | 1 | kidney")]
    assert row == "| test | 1 | kidney | 0.900 | 0.900 | – | – |"


@pytest.mark.parametrize(("known", "words"), [(True, "whose cases count as seen"), (False, "nothing is known")])
def test_a_parent_is_named(known, words):
    description = {**_card().description, "init_from": {"model": "models:/old@champion", "seen_cases_known": known}}
    text = model_card.render(_card(description=description))
    assert "began with the weights of models:/old@champion" in text
    assert words in text


def test_the_short_card_fits_a_description():
    text = model_card.short(_card())
    assert len(text) < 600
    assert "Dice of 3 test patients: kidney 0.800 [" in text
    assert "Not a medical device" in text


def test_it_is_written_beside_the_model_and_its_few_lines_are_read_back(tmp_path):
    card = _card()
    assert model_card.read_short(tmp_path) is None
    model_card.write(card, tmp_path)
    assert (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card.render(card)
    assert model_card.read_short(tmp_path) == model_card.short(card)
