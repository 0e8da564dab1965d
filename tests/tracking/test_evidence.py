"""A version's test cases are found with all their scores."""

import mlflow

from kits_ml.evaluation.evidence import Evidence, write_evaluation_json
from kits_ml.evaluation.tables import write_scores
from kits_ml.tracking import champions
from kits_ml.tracking.evidence import evidence_tag, find_evidence
from tests.evaluation.gate_cases import evidence
from tests.tracking.registry_cases import NAME, add_version

WHOLE = evidence(dict.fromkeys("abc", (0.9, 0.5)))


def _score(folder, version: str, found: Evidence) -> None:
    """Logs scores as a promotion does."""
    with mlflow.start_run() as run:
        place = folder / run.info.run_id
        write_scores(place / "scores.csv", found.cases)
        write_evaluation_json(place, found.case_digests)
        mlflow.log_artifacts(str(place), "challenger")
    champions.tag_version(NAME, version, evidence_tag(found, run_id=run.info.run_id, folder="challenger"))


def test_the_promotion_that_scored_most_tells_of_all(client, tmp_path):
    version = add_version(tmp_path)
    assert find_evidence(champions.find_version(NAME)) is None
    for found in (WHOLE, WHOLE.only("ab"), WHOLE.only("ac")):  # by their digests the last comes first
        _score(tmp_path, version, found)
    assert find_evidence(champions.find_version(NAME)).digest == WHOLE.digest


def test_the_training_tells_before_any_promotion(client, tmp_path):
    version = add_version(tmp_path, evidence=WHOLE.only("a"))
    _score(tmp_path, version, WHOLE)
    assert find_evidence(champions.find_version(NAME)).digest == WHOLE.only("a").digest
