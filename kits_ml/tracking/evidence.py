"""What a registered version showed: the scores of test cases that its training logged, or a later promotion."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from kits_ml.errors import InputError, first_line
from kits_ml.evaluation.evidence import EVALUATION_JSON, Evidence, read_evidence
from kits_ml.evaluation.tables import SCORES_CSV

log = logging.getLogger(__name__)

TEST_PART = "test"

#: Tag of a version, ended by the digest of the evaluation: where in the runs its scores are, `ID/FOLDER`.
EVIDENCE_TAG = "scores."


def find_evidence(version: ModelVersion) -> Evidence | None:
    """The scores of a version's test cases, all of them; None without any.

    Those of its training, or else of the promotion that scored most: another left out what a champion had seen.
    """
    return _of_training(version) or max(_of_promotions(version), key=lambda one: len(one.cases), default=None)


def find_common_evidence(first: ModelVersion, second: ModelVersion) -> tuple[Evidence, Evidence] | None:
    """The scores of two versions on the same files; those of the most cases where there are several evaluations.

    Returns:
        None where they have no evaluation in common.
    """
    theirs = {one.digest: one for one in _all_evidence(second)}
    common = [one for one in _all_evidence(first) if one.digest in theirs]
    if not common:
        return None
    most = max(common, key=lambda one: len(one.cases))
    return most, theirs[most.digest]


def evidence_tag(evidence: Evidence, *, run_id: str, folder: str) -> dict[str, str]:
    """The tag by which `find_evidence` finds scores that a run logged in a folder."""
    return {f"{EVIDENCE_TAG}{evidence.digest}": f"{run_id}/{folder}"}


def _all_evidence(version: ModelVersion) -> list[Evidence]:
    found = [_of_training(version), *_of_promotions(version)]
    return [one for one in found if one is not None]


def _of_training(version: ModelVersion) -> Evidence | None:
    return _fetch(version.run_id, TEST_PART) if version.run_id else None


def _of_promotions(version: ModelVersion) -> Iterator[Evidence]:
    for key, value in sorted(version.tags.items()):
        run_id, slash, folder = value.partition("/")
        if key.startswith(EVIDENCE_TAG) and slash and (found := _fetch(run_id, folder)):
            yield found


def _fetch(run_id: str, folder: str) -> Evidence | None:
    client = mlflow.MlflowClient()
    try:
        there = {Path(one.path).name for one in client.list_artifacts(run_id, folder)}
        if not {SCORES_CSV, EVALUATION_JSON} <= there:
            return None
        with tempfile.TemporaryDirectory() as target:
            paths = [
                Path(client.download_artifacts(run_id, f"{folder}/{name}", target))
                for name in (SCORES_CSV, EVALUATION_JSON)
            ]
            return read_evidence(paths[0].parent)
    except (MlflowException, InputError, OSError) as error:  # a run that was deleted, or files of another version
        log.warning("run %s: its scores in %s cannot be used (%s)", run_id, folder, first_line(error))
        return None
