"""Versions with scores, and the gate that they are put through."""

import mlflow

from kits_ml.config import PromoteSettings
from kits_ml.evaluation.evidence import Evidence
from kits_ml.tracking import champions
from kits_ml.workflows.promote import pass_gate
from tests.evaluation.gate_cases import clean_run, evidence
from tests.tracking.registry_cases import NAME

CASES = tuple(f"case_{number:05d}" for number in range(3))
LIMITS = {"model": NAME, "min_patients": 2, "margin_kidney": 0.01, "margin_tumour": 0.05, "num_bootstrap": 100}


def scores(kidney: float, tumour: float, **options) -> Evidence:
    return evidence(dict.fromkeys(CASES, (kidney, tumour)), **options)


def promote(measure=lambda folder, **options: clean_run(), **changes):
    with mlflow.start_run():
        return pass_gate(PromoteSettings(**{**LIMITS, **changes}), measure=measure)


def champion() -> str | None:
    return champions.read_standing(NAME).champion


def artifact(promotion, name: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{promotion.run_id}/gate/{name}")
