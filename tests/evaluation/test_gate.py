"""The gate lets through what is shown to be no worse, and says in a line what stands against the rest."""

import json

import numpy as np
import pytest

from kits_ml.config import GateSettings
from kits_ml.errors import InputError
from kits_ml.evaluation import gate, gate_checks
from kits_ml.evaluation.evidence import digest_of, read_evidence, write_evaluation_json
from kits_ml.evaluation.tables import write_scores
from tests.evaluation.gate_cases import clean_run, evidence, measured

NAMES = tuple(f"case_{number:05d}" for number in range(4))
SETTINGS = GateSettings(min_patients=2, margin_kidney=0.01, margin_tumour=0.05)


def _evidence(kidney, tumour, **options):
    return evidence(dict(zip(NAMES, zip(kidney, tumour, strict=True), strict=False)), **options)


CHAMPION = _evidence([0.90, 0.92, 0.94, 0.96], [0.5, 0.6, 0.7, 0.8])


def _decide(challenger, theirs=CHAMPION, *, seen=None, obstacles=(), **changes):
    scores = {"challenger": challenger, "champion": theirs}
    options = {
        **{"model": "kits-unet", "challenger": "2", "champion": "1", "settings": SETTINGS},
        "gathered": gate.Gathered(evidence=scores, seen=seen or {}, obstacles=obstacles),
        "findings": gate_checks.judge(measured(), SETTINGS),
    }
    return gate.decide(**{**options, **changes})


def test_a_constant_loss_within_the_margins_passes():
    # every patient loses 0.01 and 0.05: the bound is that very number, and the margin is just kept
    decision = _decide(_evidence([0.89, 0.91, 0.93, 0.95], [0.45, 0.55, 0.65, 0.75]))
    kidney, tumour = decision.regions
    assert (kidney.difference, kidney.low) == pytest.approx((-0.01, -0.01))
    assert (kidney.challenger_mean, kidney.champion_mean) == pytest.approx((0.92, 0.93))
    assert (tumour.difference, tumour.low) == pytest.approx((-0.05, -0.05))
    assert decision.outcome == "passed"
    assert decision.promotes


def test_a_loss_beyond_one_margin_is_refused_for_that_region():
    decision = _decide(_evidence([0.89, 0.91, 0.93, 0.95], [0.44, 0.54, 0.64, 0.74]))
    assert decision.outcome == "refused"
    assert not decision.promotes
    (reason,) = decision.refusals
    assert reason.startswith("tumour: not shown to be within 0.05 Dice of version 1: mean difference -0.0600")


def test_no_difference_on_average_is_not_enough_where_patients_disagree():
    # two gain 0.04 and two lose it: all four drawn are losers with 1/16, which is more than 5 %
    decision = _decide(_evidence([0.94, 0.96, 0.90, 0.92], [0.5, 0.6, 0.7, 0.8]))
    assert decision.regions[0].difference == pytest.approx(0)
    assert decision.regions[0].low == pytest.approx(-0.04)
    assert not decision.regions[0].passed
    assert decision.regions[1].passed


def test_the_bound_is_one_sided_and_seeded():
    differences = np.array([-0.1, 0.1])  # drawn twice: -0.1 with 1/4, 0 with 1/2, 0.1 with 1/4
    bound = {
        confidence: gate.not_worse_bound(differences, confidence=confidence, num_bootstrap=2000, seed=0)
        for confidence in (0.7, 0.8)
    }
    # the 30 % quantile is the 0; the 20 % quantile is the -0.1, and a two-sided 70 % interval would begin there too
    assert bound == pytest.approx({0.7: 0.0, 0.8: -0.1})


def test_the_first_champion_needs_no_comparison():
    decision = _decide(CHAMPION, None, champion=None)
    assert (decision.regions, decision.outcome, decision.digest) == ((), "passed", CHAMPION.digest)


@pytest.mark.parametrize(
    ("challenger", "champion", "options", "message"),
    [
        (None, CHAMPION, {}, "challenger: has no scores of test cases; give --data"),
        (CHAMPION, None, {}, "champion: has no scores of test cases; give --data"),
        (CHAMPION.only(NAMES[:3]), CHAMPION, {}, "the champion alone has case_00003"),
        (CHAMPION, CHAMPION.only(NAMES[1:]), {}, "the challenger alone has case_00000"),
        (CHAMPION, _evidence([1] * 4, [1] * 4, version="b"), {}, "other files of case_00000, case_00001"),
        (
            CHAMPION,
            CHAMPION,
            {"seen": {"champion": {"case_00002"}}},
            "champion: was trained on, or chosen by, case_00002 of the test",
        ),
        (
            CHAMPION,
            CHAMPION,
            {"settings": GateSettings(min_patients=5)},
            "min_patients: found 4 test cases, expected 5 or more",
        ),
        (CHAMPION, CHAMPION, {"obstacles": ["the server is away"]}, "the server is away"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_one_line(challenger, champion, options, message):
    decision = _decide(challenger, champion, **options)
    (reason,) = decision.refusals
    assert message in reason
    assert "\n" not in reason
    assert decision.outcome == "refused"
    assert decision.regions == ()


def test_force_promotes_and_keeps_what_spoke_against_it():
    decision = _decide(_evidence([0.5] * 4, [0.1] * 4), forced="the champion leaks memory")
    assert (decision.outcome, decision.promotes) == ("forced", True)
    assert len(decision.refusals) == 2
    assert gate.to_dict(decision)["forced"] == "the champion leaks memory"
    # nothing to force: it passes by itself
    assert _decide(CHAMPION, forced="to be sure").outcome == "passed"


CLEAN = {
    "latency": ({"seconds_per_slice": 1.5}, "1.500 s a slice of 16 x 512 x 512", "at most 1 s a slice"),
    "memory": ({"peak_memory_mb": 5000.0}, "5000 MB", "at most 4096 MB"),
    "geometry_round_trip": ({"differences": {"RAS": 0.0, "LPS": 0.4}}, "LPS differs by 0.4", "any orientation"),
    "clean_process": ({"code_from_model": False}, "another kits_ml than the model's own ran", "its own code"),
}


@pytest.mark.parametrize("name", CLEAN)
def test_each_limit_of_the_clean_process_stops(name):
    changes, found, expected = CLEAN[name]
    findings = {one.name: one for one in gate_checks.judge(measured(clean=clean_run(**changes)), GateSettings())}
    assert list(findings) == list(gate_checks.CHECKS)
    assert [one for one in findings if not findings[one].passed] == [name]
    assert found in findings[name].found
    assert expected in findings[name].expected


def test_a_process_that_failed_leaves_nothing_to_believe():
    findings = gate_checks.judge(measured(clean="No module named 'cv2'"), GateSettings())
    failed = {one.name: one.found for one in findings if not one.passed}
    assert set(failed) == {"clean_process", "geometry_round_trip", "latency", "memory"}
    assert failed["clean_process"] == "No module named 'cv2'"


def test_an_orientation_that_reads_nan_or_no_orientation_at_all_fails():
    for differences in ({"RAS": float("nan")}, {}):
        findings = gate_checks.judge(measured(clean=clean_run(differences=differences)), GateSettings())
        assert [one.name for one in findings if not one.passed] == ["geometry_round_trip"]


def test_memory_that_the_system_does_not_tell_is_said_and_stops_nothing():
    findings = {one.name: one for one in gate_checks.judge(measured(clean=clean_run(peak_memory_mb=None)), SETTINGS)}
    assert findings["memory"].passed
    assert "does not tell" in findings["memory"].found


def test_an_empty_prediction_and_a_misreading_metric_stop():
    found = _evidence([0.9, 0.9, 0.9, 0], [0.5] * 4, empty=("case_00003",))
    findings = {one.name: one for one in gate_checks.judge(measured(found=found, ok=False), SETTINGS)}
    assert [name for name, one in findings.items() if not one.passed] == ["metrics_selftest", "no_empty_predictions"]
    assert findings["no_empty_predictions"].found == "no kidney in case_00003: 1 of 4 cases"
    assert findings["metrics_selftest"].found == "1 of 1 readings wrong (dice)"


def test_evidence_comes_back_from_its_folder(tmp_path):
    write_scores(tmp_path / "scores.csv", CHAMPION.cases)
    write_evaluation_json(tmp_path, CHAMPION.case_digests)
    found = read_evidence(tmp_path)
    assert found.digest == CHAMPION.digest == digest_of({name: name for name in NAMES})
    assert [case.regions["tumour"].dice for case in found.cases] == [0.5, 0.6, 0.7, 0.8]
    (tmp_path / "evaluation.json").write_text(json.dumps({"case_digests": {"case_00000": "a"}}))
    with pytest.raises(InputError, match="and digests of 1, expected one score and one digest"):
        read_evidence(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_evidence(tmp_path)
