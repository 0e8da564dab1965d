"""Champion and challenger scored on the same cases at the gate, for want of scores that are known."""

import numpy as np
import pytest

from kits_ml.config import RollbackSettings
from kits_ml.data import cases as case_files
from kits_ml.evaluation.evidence import Evidence
from kits_ml.workflows import gate_evidence
from kits_ml.workflows.rollback import rollback
from tests.evaluation.gate_cases import evidence
from tests.tracking.registry_cases import NAME, add_version
from tests.workflows.gate.promotions import CASES, promote, scores


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
    add_version(tmp_path, evidence=scores(0.9, 0.5, version="elsewhere"))
    promote()
    challenger = Evidence(cases=own.cases, case_digests=data)
    version = add_version(tmp_path, evidence=challenger)
    # the kidney is 180 HU, the body 40: a threshold of 120 finds it, but not the tumour of 90
    loaded = _by_version(
        monkeypatch, {"1": _Thresholds(120, {})}, {"1": client.get_model_version(NAME, "1").source[7:]}
    )
    refused = promote(data=str(tmp_path / "cases"))
    kidney, tumour = refused.decision.regions
    assert kidney.champion_mean > 0.8 > tumour.champion_mean == 0
    assert not refused.promoted
    assert (kidney.passed, tumour.passed) == (False, True)
    assert client.get_model_version(NAME, "1").tags[f"scores.{challenger.digest}"] == f"{refused.run_id}/champion"
    again = promote(version=int(version))  # without data: the scores are known now
    assert again.decision.regions == refused.decision.regions
    assert loaded == ["1"]


def test_with_data_what_the_champion_has_seen_is_left_out_for_both(client, tmp_path, data, monkeypatch):
    add_version(tmp_path, evidence=scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    promote()
    challenger = Evidence(cases=evidence(dict.fromkeys(data, (0.99, 0.4))).cases, case_digests=data)
    version = add_version(tmp_path, evidence=challenger)
    source = client.get_model_version(NAME, "1").source[7:]
    loaded = _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[0]]})}, {"1": source})
    promotion = promote(data=str(tmp_path / "cases"))
    assert promotion.promoted
    assert promotion.decision.regions[0].num_cases == 2
    rest = challenger.only(CASES[1:])
    assert promotion.decision.digest == rest.digest
    for who, number in (("champion", "1"), ("challenger_compared", version)):
        assert client.get_model_version(NAME, number).tags[f"scores.{rest.digest}"] == f"{promotion.run_id}/{who}"
    rollback(RollbackSettings(model=NAME))
    again = promote(version=int(version))  # without data: the scores of both on these two are known now
    assert again.promoted
    assert again.decision.regions == promotion.decision.regions
    assert loaded == ["1"]


def test_a_kidney_missed_in_a_case_that_the_champion_has_seen_counts(client, tmp_path, data, monkeypatch):
    """The comparison goes without that case; also later, when its scores are known by their tag."""
    add_version(tmp_path, evidence=scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    promote()
    found = evidence(dict.fromkeys(data, (0.99, 0.4)), empty=CASES[:1])
    add_version(tmp_path, evidence=Evidence(cases=found.cases, case_digests=data))
    source = client.get_model_version(NAME, "1").source[7:]
    _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[0]]})}, {"1": source})
    for options in ({"data": str(tmp_path / "cases")}, {}):
        refused = promote(**options)
        assert [one.num_cases for one in refused.decision.regions] == [2, 2]
        (reason,) = refused.decision.refusals
        assert "found no kidney in case_00000: 1 of 3 cases" in reason


def test_so_it_does_where_the_challenger_is_scored_now(client, tmp_path, data, monkeypatch):
    class MissesTheFirst(_Thresholds):
        def segment(self, image, **options):
            found = super().segment(image, **options)
            self.threshold_hu = 120  # from the second scan on
            return found

    add_version(tmp_path, evidence=scores(0.9, 0.5, version="elsewhere"), seen_cases={"x": data[CASES[0]]})
    promote()
    version = add_version(tmp_path, evidence=None)
    sources = {number: client.get_model_version(NAME, number).source[7:] for number in ("1", version)}
    networks = {"1": _Thresholds(120, {"x": data[CASES[0]]}), version: MissesTheFirst(10_000, {})}
    _by_version(monkeypatch, networks, sources)
    refused = promote(data=str(tmp_path / "cases"))
    assert [one.num_cases for one in refused.decision.regions] == [2, 2]
    (reason,) = refused.decision.refusals
    assert "found no kidney in case_00000: 1 of 3 cases" in reason


def test_data_that_lacks_a_test_case_is_refused(client, tmp_path, data):
    add_version(tmp_path, evidence=scores(0.9, 0.5, version="elsewhere"))
    promote()
    changed = {**data, CASES[2]: "another file"}
    add_version(
        tmp_path, evidence=Evidence(cases=evidence(dict.fromkeys(data, (0.9, 0.5))).cases, case_digests=changed)
    )
    reason = promote(data=str(tmp_path / "cases")).reason
    assert "lacks 1 of the challenger's 3 test cases, such as case_00002; expected the same files" in reason


def test_with_data_a_version_without_scores_is_scored(client, tmp_path, data, monkeypatch):
    version = add_version(tmp_path)
    source = client.get_model_version(NAME, version).source[7:]
    _by_version(monkeypatch, {"1": _Thresholds(120, {"x": data[CASES[1]]})}, {"1": source})
    promotion = promote(data=str(tmp_path / "cases"))
    assert promotion.promoted
    assert [one.found for one in promotion.decision.findings if one.name == "no_empty_predictions"] == [
        "one in 2 of 2 cases"
    ]
