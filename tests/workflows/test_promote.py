"""The gate acts: tags, artifacts, aliases, and what happens when two come at once."""

import json

import mlflow
import numpy as np
import pytest

from kits_ml.config import PromoteSettings, RollbackSettings, TrainSettings
from kits_ml.data import cases as case_files
from kits_ml.errors import InputError, StoppedError
from kits_ml.evaluation import selftest
from kits_ml.evaluation.evidence import Evidence
from kits_ml.tracking import champions
from kits_ml.tracking.registry import Registered
from kits_ml.workflows import gate_evidence, packaging
from kits_ml.workflows.promote import pass_gate
from kits_ml.workflows.rollback import rollback
from tests.evaluation.gate_cases import clean_run, evidence
from tests.tracking.registry_cases import NAME, add_version, make_template, registry_in

CASES = tuple(f"case_{number:05d}" for number in range(3))
LIMITS = {"model": NAME, "min_patients": 2, "margin_kidney": 0.01, "margin_tumour": 0.05, "num_bootstrap": 100}


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory):
    return make_template(tmp_path_factory.getbasetemp().parent)


@pytest.fixture
def client(tmp_path, registry_template, monkeypatch):
    row = selftest.Row(metric="dice", convention="", scenario="perfect", expected="1", found="1", ok=True)
    monkeypatch.setattr(selftest, "readings", lambda subjects: [row])  # the real ones have their own tests
    with registry_in(tmp_path, registry_template) as client:
        yield client


def _scores(kidney: float, tumour: float, **options) -> Evidence:
    return evidence(dict.fromkeys(CASES, (kidney, tumour)), **options)


def _promote(measure=lambda folder, **options: clean_run(), **changes):
    with mlflow.start_run():
        return pass_gate(PromoteSettings(**{**LIMITS, **changes}), measure=measure)


def _champion() -> str | None:
    return champions.read_standing(NAME).champion


def _artifact(client, promotion, name: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{promotion.run_id}/gate/{name}")


def test_the_first_champion_passes_the_absolute_checks(client, tmp_path):
    version = add_version(tmp_path, evidence=_scores(0.9, 0.5))
    asked = []

    def measure(folder, **options):
        asked.append((folder.name.startswith("model-"), options))
        return clean_run(seconds_per_slice=0.25)

    promotion = _promote(measure, check_slices=7, check_timeout_s=60.0)
    assert asked == [(True, {"num_slices": 7, "timeout_s": 60.0})]
    assert promotion.promoted
    assert promotion.registered.aliases == ("challenger", "champion")
    tags = client.get_model_version(NAME, version).tags
    assert (tags["gate"], tags["gate_against"]) == ("passed", "none, the first champion")
    assert tags["gate_evaluation_digest"] == _scores(0.9, 0.5).digest
    assert tags["gate_run"] == promotion.run_id
    assert not {"gate_kidney", "gate_refusals", "gate_forced"} & set(tags)
    content = json.loads(_artifact(client, promotion, "gate.json"))
    assert (content["outcome"], content["champion"], content["regions"]) == ("passed", None, [])
    assert (content["promoted"], content["aborted"]) == (True, None)
    assert content["clean_process"]["seconds_per_slice"] == 0.25
    assert len(content["checks"]) == 6
    with pytest.raises(InputError, match="version 1 is the champion already"):
        _promote()


def test_a_first_model_that_fails_a_check_is_no_champion(client, tmp_path):
    version = add_version(tmp_path, evidence=_scores(0.0, 0.0, empty=CASES))
    promotion = _promote(lambda folder, **options: "No module named 'isal'")
    assert not promotion.promoted
    assert _champion() is None
    tags = client.get_model_version(NAME, version).tags
    assert tags["gate"] == "refused"
    assert tags["gate_failed_checks"] == ("clean_process, geometry_round_trip, latency, memory, no_empty_predictions")
    assert "No module named 'isal'" in promotion.reason
    assert "| no_empty_predictions | no kidney in case_00000" in _artifact(client, promotion, "gate.md")


def test_a_challenger_within_the_margins_takes_the_place_and_one_beyond_does_not(client, tmp_path):
    add_version(tmp_path, evidence=_scores(0.9, 0.5))
    _promote()
    worse = add_version(tmp_path, evidence=_scores(0.88, 0.6))
    refused = _promote()
    assert (refused.promoted, _champion()) == (False, "1")
    tags = client.get_model_version(NAME, worse).tags
    assert tags["gate_kidney"] == "-0.0200, at least -0.0200, margin 0.01, 3 patients"
    assert tags["gate_tumour"] == "+0.1000, at least +0.1000, margin 0.05, 3 patients"
    assert "kidney: not shown to be within 0.01 Dice of version 1" in refused.reason
    good = add_version(tmp_path, evidence=_scores(0.895, 0.47))
    assert _promote(version=int(good)).promoted
    assert _champion() == good
    assert client.get_model_version(NAME, good).tags["gate_against"] == "1"


def test_force_leaves_its_trace_and_rollback_takes_it_back(client, tmp_path):
    add_version(tmp_path, evidence=_scores(0.9, 0.5))
    _promote()
    version = add_version(tmp_path, evidence=_scores(0.5, 0.1))
    client.update_model_version(NAME, version, "a U-Net")
    promotion = _promote(force=True, reason="the champion's licence has ended")
    assert (promotion.promoted, _champion()) == (True, version)
    found = client.get_model_version(NAME, version)
    assert (found.tags["gate"], found.tags["gate_forced"]) == ("forced", "the champion's licence has ended")
    assert found.tags["gate_refusals"].startswith("kidney: not shown to be within 0.01")
    assert found.description == "a U-Net\n\nForced past the gate: the champion's licence has ended"
    page = _artifact(client, promotion, "gate.md")
    assert page.startswith("# kits-unet, version 2 becomes champion in place of version 1, by force")
    done = rollback(RollbackSettings(model=NAME, reason="it was worse"))
    assert (done.gone, done.champion.version, _champion()) == ("2", "1", "1")
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
        add_version(tmp_path, evidence=_scores(0.9, 0.5))
    client.update_model_version(NAME, "2", "a U-Net")
    _promote(version=1)

    def measure(folder, **options):
        with mlflow.start_run(nested=True):
            pass_gate(PromoteSettings(**LIMITS, version=3), measure=lambda folder, **options: clean_run())
        return clean_run()

    # too few patients for the gate: it is open to force only
    options = {"force": True, "reason": "at once", "min_patients": 4} if force else {}
    promotion = _promote(measure, version=2, **options)
    assert not promotion.promoted
    assert "its champion was version 1 when this was decided and is version 3 now" in promotion.reason
    assert champions.read_standing(NAME).history == ("1", "3")
    found = client.get_model_version(NAME, "2")
    assert found.tags["gate"].startswith("aborted: model kits-unet: its champion was")
    assert "gate_forced" not in found.tags
    assert found.description == "a U-Net"
    content = json.loads(_artifact(client, promotion, "gate.json"))
    assert (content["outcome"], content["promoted"]) == ("aborted", False)
    assert content["aborted"] == promotion.reason
    assert content["forced"] == ("at once" if force else None)
    page = _artifact(client, promotion, "gate.md")
    assert page.startswith("# kits-unet, version 2 does not become champion\n\nOutcome: **aborted**.")
    assert f"Aborted: {promotion.reason}" in page


def test_a_process_that_dies_between_decision_and_deed_leaves_what_is_true(client, tmp_path, monkeypatch):
    version = add_version(tmp_path, evidence=_scores(0.9, 0.5))

    def die(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(champions, "set_champion", die)
    with pytest.raises(KeyboardInterrupt):
        _promote()
    tags = client.get_model_version(NAME, version).tags
    assert tags["gate"] == "passed, not acted upon yet"
    content = json.loads(mlflow.artifacts.load_text(f"runs:/{tags['gate_run']}/gate/gate.json"))
    assert (content["outcome"], content["promoted"]) == ("passed", None)


def test_other_patients_are_refused_and_nothing_is_scored_without_data(client, tmp_path):
    add_version(tmp_path, evidence=_scores(0.9, 0.5))
    _promote()
    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="b"))
    assert "other files of case_00000, case_00001, case_00002); give --data" in _promote().reason
    add_version(tmp_path)
    assert "challenger: has no scores of test cases; give --data" in _promote().reason


def test_who_has_seen_the_test_cases_or_does_not_say_is_refused(client, tmp_path):
    add_version(tmp_path, evidence=_scores(0.9, 0.5), seen_cases={"a": CASES[1]})
    _promote()
    add_version(tmp_path, evidence=_scores(0.9, 0.5))
    assert "champion: was trained on, or chosen by, case_00001 of the test cases" in _promote().reason
    add_version(tmp_path, evidence=_scores(0.9, 0.5), init_from={"seen_cases_known": False})
    assert "challenger: does not say which cases it was trained on" in _promote().reason


class _Thresholds:
    """In place of a network: soft tissue brighter than a threshold is kidney."""

    def __init__(self, threshold_hu: float, seen: dict[str, str]):
        self.threshold_hu = threshold_hu
        self.description = {"seen_cases": seen}

    def segment(self, image, *, spacing_mm, observe, progress=None):
        label_map = (image > self.threshold_hu).astype(np.uint8)
        for index, one in enumerate(label_map):
            probabilities = np.stack([one == label for label in range(3)]).astype(np.float32)
            observe(index, (slice(0, one.shape[0]), slice(0, one.shape[1])), probabilities)
        return label_map


@pytest.fixture
def data(tmp_path, make_case):
    for number, name in enumerate(CASES):
        make_case(tmp_path / "cases", name, seed=number)
    return {case.name: case.digest() for case in case_files.find_cases(tmp_path / "cases")}


def _by_version(monkeypatch, predictors: dict[str, _Thresholds], folders: dict[str, str]) -> list[str]:
    loaded = []

    def load(folder, *, batch_size):
        version = next(version for version, part in folders.items() if part in str(folder))
        loaded.append(version)
        return predictors[version]

    monkeypatch.setattr(gate_evidence.Predictor, "load", load)
    return loaded


def test_with_data_the_champion_is_scored_on_the_challengers_cases_once(client, tmp_path, data, monkeypatch):
    own = evidence(dict.fromkeys(data, (0.8, 0.4)))
    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="elsewhere"))
    _promote()
    challenger = Evidence(cases=own.cases, case_digests=data)
    version = add_version(tmp_path, evidence=challenger)
    # the kidney is 180 HU, the body 40: a threshold of 120 finds it, but not the tumour of 90
    loaded = _by_version(
        monkeypatch, {"1": _Thresholds(120, {})}, {"1": client.get_model_version(NAME, "1").source[7:]}
    )
    refused = _promote(data=str(tmp_path / "cases"))
    kidney, tumour = refused.decision.regions
    assert kidney.champion_mean > 0.8 > tumour.champion_mean == 0
    assert not refused.promoted
    assert (kidney.passed, tumour.passed) == (False, True)
    assert client.get_model_version(NAME, "1").tags[f"scores.{challenger.digest}"] == f"{refused.run_id}/champion"
    again = _promote(version=int(version))  # without data: the scores are known now
    assert again.decision.regions == refused.decision.regions
    assert loaded == ["1"]


def test_with_data_what_the_champion_has_seen_is_left_out_for_both(client, tmp_path, data, monkeypatch):
    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    _promote()
    challenger = Evidence(cases=evidence(dict.fromkeys(data, (0.99, 0.4))).cases, case_digests=data)
    version = add_version(tmp_path, evidence=challenger)
    source = client.get_model_version(NAME, "1").source[7:]
    loaded = _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[0]]})}, {"1": source})
    promotion = _promote(data=str(tmp_path / "cases"))
    assert promotion.promoted
    assert promotion.decision.regions[0].num_cases == 2
    rest = challenger.only(CASES[1:])
    assert promotion.decision.digest == rest.digest
    for who, number in (("champion", "1"), ("challenger_compared", version)):
        assert client.get_model_version(NAME, number).tags[f"scores.{rest.digest}"] == f"{promotion.run_id}/{who}"
    rollback(RollbackSettings(model=NAME))
    again = _promote(version=int(version))  # without data: the scores of both on these two are known now
    assert again.promoted
    assert again.decision.regions == promotion.decision.regions
    assert loaded == ["1"]


def test_a_kidney_missed_in_a_case_that_the_champion_has_seen_counts(client, tmp_path, data, monkeypatch):
    """The comparison goes without that case; also later, when its scores are known by their tag."""
    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    _promote()
    found = evidence(dict.fromkeys(data, (0.99, 0.4)), empty=CASES[:1])
    add_version(tmp_path, evidence=Evidence(cases=found.cases, case_digests=data))
    source = client.get_model_version(NAME, "1").source[7:]
    _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[0]]})}, {"1": source})
    for options in ({"data": str(tmp_path / "cases")}, {}):
        refused = _promote(**options)
        assert [one.num_cases for one in refused.decision.regions] == [2, 2]
        (reason,) = refused.decision.refusals
        assert "found no kidney in case_00000: 1 of 3 cases" in reason


def test_so_it_does_where_the_challenger_is_scored_now(client, tmp_path, data, monkeypatch):
    class MissesTheFirst(_Thresholds):
        def segment(self, image, **options):
            found = super().segment(image, **options)
            self.threshold_hu = 120  # from the second scan on
            return found

    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    _promote()
    version = add_version(tmp_path, evidence=None)
    sources = {number: client.get_model_version(NAME, number).source[7:] for number in ("1", version)}
    networks = {"1": _Thresholds(120, {"x": data[CASES[0]]}), version: MissesTheFirst(10_000, {})}
    _by_version(monkeypatch, networks, sources)
    refused = _promote(data=str(tmp_path / "cases"))
    assert [one.num_cases for one in refused.decision.regions] == [2, 2]
    (reason,) = refused.decision.refusals
    assert "found no kidney in case_00000: 1 of 3 cases" in reason


def test_data_that_lacks_a_test_case_is_refused(client, tmp_path, data):
    add_version(tmp_path, evidence=_scores(0.9, 0.5, version="elsewhere"))
    _promote()
    changed = {**data, CASES[2]: "another file"}
    add_version(
        tmp_path, evidence=Evidence(cases=evidence(dict.fromkeys(data, (0.9, 0.5))).cases, case_digests=changed)
    )
    reason = _promote(data=str(tmp_path / "cases")).reason
    assert "lacks 1 of the challenger's 3 test cases, such as case_00002; expected the same files" in reason


def test_with_data_a_version_without_scores_is_scored(client, tmp_path, data, monkeypatch):
    version = add_version(tmp_path)
    source = client.get_model_version(NAME, version).source[7:]
    _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[1]]})}, {"1": source})
    promotion = _promote(data=str(tmp_path / "cases"))
    assert promotion.promoted
    assert [one.found for one in promotion.decision.findings if one.name == "no_empty_predictions"] == [
        "one in 2 of 2 cases"
    ]


def test_a_gate_that_cannot_be_asked_leaves_the_training_finished(monkeypatch, caplog):
    def pass_gate(settings):
        assert (settings.model, settings.version, settings.batch_size) == (NAME, 7, 3)
        raise InputError("tracking server: does not answer")

    monkeypatch.setattr(packaging, "pass_gate", pass_gate)
    registered = Registered(name=NAME, version="7", aliases=())
    assert packaging.put_through_gate(registered, TrainSettings(batch_size=3)) is None
    assert packaging.put_through_gate(registered, TrainSettings(promote=False)) is None
    assert packaging.put_through_gate(None, TrainSettings()) is None
    assert "kits-unet, version 7, did not come through the gate: tracking server: does not answer" in caplog.text


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), StoppedError("stopped by SIGTERM", signal_number=15)])
def test_who_stops_at_the_gate_hears_that_the_training_is_finished(ended_by, monkeypatch):
    def stop(settings):
        raise ended_by

    monkeypatch.setattr(packaging, "pass_gate", stop)
    message = f"finished and version 3 of {NAME} registered; its gate: kits-ml promote --model {NAME} --version 3"
    with pytest.raises(StoppedError, match=message):
        packaging.put_through_gate(Registered(name=NAME, version="3", aliases=()), TrainSettings())
