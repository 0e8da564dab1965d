"""The scores that the gate weighs: what was logged before, or what is scored now."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion

from kits_ml.config import PromoteSettings
from kits_ml.data import cases as case_files
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.evaluation import tables
from kits_ml.evaluation.evidence import Evidence, write_evaluation_json
from kits_ml.evaluation.gate import Gathered
from kits_ml.inference.predictor import Predictor, read_description
from kits_ml.tracking import addresses, champions
from kits_ml.tracking.evidence import evidence_tag, find_common_evidence, find_evidence
from kits_ml.workflows.evaluate import score_model, select_unseen
from kits_ml.workflows.segmenters import Segmenter, as_stored

log = logging.getLogger(__name__)


def gather(settings: PromoteSettings, *, challenger: ModelVersion, champion: ModelVersion | None) -> Gathered:
    """Finds the scores of both on the same cases; with `data`, scores what is missing, and logs it to the active run.

    Args:
        settings: of the promotion.
        challenger: the version that wants to be champion.
        champion: the one that is; None where there is none yet.
    """
    versions = {"challenger": challenger, **({"champion": champion} if champion else {})}
    seen: dict[str, Set[str]] = {}
    unknown, obstacles = [], []
    for who, version in versions.items():
        description = read_description(addresses.local_folder(_uri(version)))
        seen[who] = set(description.get("seen_cases", {}).values())
        parent = description.get("init_from")
        if "seen_cases" not in description or (parent and not parent["seen_cases_known"]):
            unknown.append(f"{who}: does not say which cases it was trained on, so no case is known to be new to it")
    whole = find_evidence(challenger)
    common = find_common_evidence(challenger, champion) if champion else None
    own, theirs = common or (whole, None)
    if settings.data is not None and (own is None or (champion and theirs is None)):
        try:
            whole = whole or _score_all(settings, challenger)
            own, theirs = whole, None
            if champion:
                own, theirs = _score_champion(settings, versions=versions, own=whole)
        except InputError as error:
            obstacles.append(str(error).splitlines()[0])
    elif settings.data is not None:
        log.warning("data %s: not used, the versions have scores of the same cases already", settings.data)
    if champion and theirs is None:
        theirs = find_evidence(champion)  # of other cases: the line that refuses them names them
    found = {"challenger": own, "champion": theirs}
    obstacles = (*(unknown if champion else ()), *obstacles)
    return Gathered(evidence=found, seen=seen, obstacles=obstacles, whole=whole)


def _score_all(settings: PromoteSettings, challenger: ModelVersion) -> Evidence:
    """The challenger's scores of the cases that it has not seen."""
    predictor = _load(settings, challenger)
    cases = select_unseen({case.name: case for case in case_files.find_cases(settings.data)}, predictor)
    own = _score(as_stored(predictor), cases, "score the challenger")
    _keep(own, "challenger", challenger)
    return own


def _score_champion(
    settings: PromoteSettings, *, versions: Mapping[str, ModelVersion], own: Evidence
) -> tuple[Evidence, Evidence]:
    """Both scores, the challenger's first, of those of its test cases that the champion has not seen."""
    cases = {case.name: case for case in case_files.find_cases(settings.data)}
    cases = _same_cases(cases, own, folder=settings.data)
    predictor = _load(settings, versions["champion"])
    cases = select_unseen(cases, predictor)
    theirs = _score(as_stored(predictor), cases, "score the champion")
    _keep(theirs, "champion", versions["champion"])
    if set(cases) < set(own.case_digests):
        own = own.only(cases)
        _keep(own, "challenger_compared", versions["challenger"])
    return own, theirs


def _load(settings: PromoteSettings, version: ModelVersion) -> Predictor:
    return Predictor.load(addresses.local_folder(_uri(version)), batch_size=settings.batch_size)


def _same_cases(cases: Mapping[str, case_files.Case], own: Evidence, *, folder: str) -> dict[str, case_files.Case]:
    """The cases of some evidence, by the names they have there, found by their files."""
    by_digest = {case.digest(): case for case in cases.values()}
    missing = [name for name, digest in own.case_digests.items() if digest not in by_digest]
    if missing:
        raise InputError(
            f"data {folder}: lacks {len(missing)} of the challenger's {len(own.cases)} test cases, such as "
            f"{missing[0]}; expected the same files"
        )
    return {name: by_digest[digest] for name, digest in sorted(own.case_digests.items())}


def _score(segmenter: Segmenter, cases: Mapping[str, case_files.Case], description: str) -> Evidence:
    with tempfile.TemporaryDirectory() as place:
        scored, failures = score_model(segmenter, cases, output=Path(place), description=description)
        if failures:
            raise CasesFailedError(failures, len(cases))
    return Evidence(cases=tuple(scored), case_digests={name: case.digest() for name, case in cases.items()})


def _keep(evidence: Evidence, who: str, version: ModelVersion) -> None:
    """Logs scores to the active run, and tells the version where they are."""
    with tempfile.TemporaryDirectory() as place:
        tables.write_scores(Path(place) / tables.SCORES_CSV, evidence.cases)
        write_evaluation_json(Path(place), evidence.case_digests)
        mlflow.log_artifacts(place, who)
    tag = evidence_tag(evidence, run_id=mlflow.active_run().info.run_id, folder=who)
    champions.tag_version(version.name, str(version.version), tag)


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"
