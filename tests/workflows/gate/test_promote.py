"""The gate acts: tags, artifacts, aliases, and what happens when two come at once."""

import json

import mlflow
import pytest

from kits_ml.config import PromoteSettings, RollbackSettings
from kits_ml.errors import InputError
from kits_ml.tracking import champions
from kits_ml.workflows.promote import pass_gate
from kits_ml.workflows.rollback import rollback
from tests.evaluation.gate_cases import clean_run
from tests.tracking.registry_cases import NAME, add_version
from tests.workflows.gate.promotions import CASES, LIMITS, artifact, champion, promote, scores


def test_the_first_champion_passes_the_absolute_checks(client, tmp_path):
    version = add_version(tmp_path, evidence=scores(0.9, 0.5))
    asked = []

    def measure(folder, **options):
        asked.append((folder.name.startswith("model-"), options))
        return clean_run(seconds_per_slice=0.25)

    promotion = promote(measure, check_slices=7, check_timeout_s=60.0)
    assert asked == [(True, {"num_slices": 7, "timeout_s": 60.0})]
    assert promotion.promoted
    assert promotion.registered.aliases == ("challenger", "champion")
    tags = client.get_model_version(NAME, version).tags
    assert (tags["gate"], tags["gate_against"]) == ("passed", "none, the first champion")
    assert tags["gate_evaluation_digest"] == scores(0.9, 0.5).digest
    assert tags["gate_run"] == promotion.run_id
    assert not {"gate_kidney", "gate_refusals", "gate_forced"} & set(tags)
    content = json.loads(artifact(promotion, "gate.json"))
    assert (content["outcome"], content["champion"], content["regions"]) == ("passed", None, [])
    assert (content["promoted"], content["aborted"]) == (True, None)
    assert content["clean_process"]["seconds_per_slice"] == 0.25
    assert len(content["checks"]) == 6
    with pytest.raises(InputError, match="version 1 is the champion already"):
        promote()


def test_a_first_model_that_fails_a_check_is_no_champion(client, tmp_path):
    version = add_version(tmp_path, evidence=scores(0.0, 0.0, empty=CASES))
    promotion = promote(lambda folder, **options: "No module named 'isal'")
    assert not promotion.promoted
    assert champion() is None
    tags = client.get_model_version(NAME, version).tags
    assert tags["gate"] == "refused"
    assert tags["gate_failed_checks"] == ("clean_process, geometry_round_trip, latency, memory, no_empty_predictions")
    assert "No module named 'isal'" in promotion.reason
    assert "| no_empty_predictions | no kidney in case_00000" in artifact(promotion, "gate.md")


def test_a_challenger_within_the_margins_takes_the_place_and_one_beyond_does_not(client, tmp_path):
    add_version(tmp_path, evidence=scores(0.9, 0.5))
    promote()
    worse = add_version(tmp_path, evidence=scores(0.88, 0.6))
    refused = promote()
    assert (refused.promoted, champion()) == (False, "1")
    tags = client.get_model_version(NAME, worse).tags
    assert tags["gate_kidney"] == "-0.0200, at least -0.0200, margin 0.01, 3 patients"
    assert tags["gate_tumour"] == "+0.1000, at least +0.1000, margin 0.05, 3 patients"
    assert "kidney: not shown to be within 0.01 Dice of version 1" in refused.reason
    good = add_version(tmp_path, evidence=scores(0.895, 0.47))
    assert promote(version=int(good)).promoted
    assert champion() == good
    assert client.get_model_version(NAME, good).tags["gate_against"] == "1"


def test_force_leaves_its_trace_and_rollback_takes_it_back(client, tmp_path):
    add_version(tmp_path, evidence=scores(0.9, 0.5))
    promote()
    version = add_version(tmp_path, evidence=scores(0.5, 0.1))
    client.update_model_version(NAME, version, "a U-Net")
    promotion = promote(force=True, reason="the champion's licence has ended")
    assert (promotion.promoted, champion()) == (True, version)
    found = client.get_model_version(NAME, version)
    assert (found.tags["gate"], found.tags["gate_forced"]) == ("forced", "the champion's licence has ended")
    assert found.tags["gate_refusals"].startswith("kidney: not shown to be within 0.01")
    assert found.description == "a U-Net\n\nForced past the gate: the champion's licence has ended"
    page = artifact(promotion, "gate.md")
    assert page.startswith("# kits-unet, version 2 becomes champion in place of version 1, by force")
    done = rollback(RollbackSettings(model=NAME, reason="it was worse"))
    assert (done.gone, done.champion.version, champion()) == ("2", "1", "1")
    assert client.get_model_version(NAME, "2").tags["rolled_back"].endswith("to version 1: it was worse")
    assert client.get_model_version(NAME, "1").tags["champion_again"].endswith("version 2: it was worse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force": True}, "force: found true without a reason"),
        ({"force": True, "reason": "  "}, "force: found true without a reason"),
        ({"reason": "because"}, "reason: found without force"),
    ],
)
def test_force_and_its_reason_come_together(options, message):
    with pytest.raises(InputError, match=message):
        PromoteSettings(**options)


@pytest.mark.parametrize("force", [False, True])
def test_a_promotion_that_is_overtaken_aborts(client, tmp_path, force):
    """While version 2 is measured, version 3 goes through the gate."""
    for _ in range(3):
        add_version(tmp_path, evidence=scores(0.9, 0.5))
    client.update_model_version(NAME, "2", "a U-Net")
    promote(version=1)

    def measure(folder, **options):
        with mlflow.start_run(nested=True):
            pass_gate(PromoteSettings(**LIMITS, version=3), measure=lambda folder, **options: clean_run())
        return clean_run()

    # too few patients for the gate: it is open to force only
    options = {"force": True, "reason": "at once", "min_patients": 4} if force else {}
    promotion = promote(measure, version=2, **options)
    assert not promotion.promoted
    assert "its champion was version 1 when this was decided and is version 3 now" in promotion.reason
    assert champions.read_standing(NAME).history == ("1", "3")
    found = client.get_model_version(NAME, "2")
    assert found.tags["gate"].startswith("aborted: model kits-unet: its champion was")
    assert "gate_forced" not in found.tags
    assert found.description == "a U-Net"
    content = json.loads(artifact(promotion, "gate.json"))
    assert (content["outcome"], content["promoted"]) == ("aborted", False)
    assert content["aborted"] == promotion.reason
    assert content["forced"] == ("at once" if force else None)
    page = artifact(promotion, "gate.md")
    assert page.startswith("# kits-unet, version 2 does not become champion\n\nOutcome: **aborted**.")
    assert f"Aborted: {promotion.reason}" in page


def test_a_process_that_dies_between_decision_and_deed_leaves_what_is_true(client, tmp_path, monkeypatch):
    version = add_version(tmp_path, evidence=scores(0.9, 0.5))

    def die(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(champions, "set_champion", die)
    with pytest.raises(KeyboardInterrupt):
        promote()
    tags = client.get_model_version(NAME, version).tags
    assert tags["gate"] == "passed, not acted upon yet"
    content = json.loads(mlflow.artifacts.load_text(f"runs:/{tags['gate_run']}/gate/gate.json"))
    assert (content["outcome"], content["promoted"]) == ("passed", None)


def test_other_patients_are_refused_and_nothing_is_scored_without_data(client, tmp_path):
    add_version(tmp_path, evidence=scores(0.9, 0.5))
    promote()
    add_version(tmp_path, evidence=scores(0.9, 0.5, version="b"))
    assert "other files of case_00000, case_00001, case_00002); give --data" in promote().reason
    add_version(tmp_path)
    assert "challenger: has no scores of test cases; give --data" in promote().reason


def test_who_has_seen_the_test_cases_or_does_not_say_is_refused(client, tmp_path):
    add_version(tmp_path, evidence=scores(0.9, 0.5), seen_cases={"a": CASES[1]})
    promote()
    add_version(tmp_path, evidence=scores(0.9, 0.5))
    assert "champion: was trained on, or chosen by, case_00001 of the test cases" in promote().reason
    add_version(tmp_path, evidence=scores(0.9, 0.5), init_from={"seen_cases_known": False})
    assert "challenger: does not say which cases it was trained on" in promote().reason
