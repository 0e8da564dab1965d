"""Put a registered version through the gate, and make it the champion if it passes."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion

from kits_ml import runtime
from kits_ml.config import PromoteSettings
from kits_ml.errors import InputError
from kits_ml.evaluation import gate, gate_checks, gate_report, selftest, subjects
from kits_ml.evaluation.gate import Decision
from kits_ml.evaluation.gate_checks import CleanRun
from kits_ml.tracking import addresses, champions, registry, runs
from kits_ml.tracking.champions import Standing
from kits_ml.tracking.clean_process import run_clean
from kits_ml.workflows.gate_evidence import gather

GATE_FOLDER = "gate"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """How it went.

    Attributes:
        decision: what the gate says.
        registered: the version as it stands now.
        run_id: the run that holds `gate/gate.json` and `gate/gate.md`.
    """

    decision: Decision
    registered: registry.Registered
    run_id: str

    @property
    def promoted(self) -> bool:
        """Whether it is the champion now."""
        return bool(self.decision.promoted)

    @property
    def aborted(self) -> str | None:
        """Why it did not become champion although it was to: the champion had changed meanwhile."""
        return self.decision.aborted

    @property
    def reason(self) -> str:
        """Why it is not the champion, one line."""
        return self.aborted or f"{gate_report.headline(self.decision)}: {'; '.join(self.decision.refusals)}"


def promote(settings: PromoteSettings) -> Promotion:
    """Decides and acts, in an MLflow run of its own.

    Raises:
        InputError: no such version, one that is the champion already, or a server that does not answer.
    """
    _read(settings)  # before the long part begins
    runtime.configure(num_threads=settings.num_threads)
    with runs.run(experiment=settings.experiment, run_name="promote"):
        runs.log_settings(settings)
        return pass_gate(settings)


def pass_gate(settings: PromoteSettings, *, measure: Callable[..., CleanRun | str] = run_clean) -> Promotion:
    """Decides and acts; what is found goes to the active run and to the version's tags.

    Args:
        settings: which version, margins and limits.
        measure: measures a model's folder, see `clean_process.run_clean`.

    Raises:
        InputError: as `promote`.
    """
    standing, challenger = _read(settings)
    number = str(challenger.version)
    champion = champions.find_version(settings.model, int(standing.champion)) if standing.champion else None
    gathered = gather(settings, challenger=challenger, champion=champion)
    measured = gate_checks.Measured(
        selftest=selftest.readings(subjects.metrics_in_use()),
        clean=measure(
            addresses.mlflow_folder(f"models:/{settings.model}/{number}"),
            num_slices=settings.check_slices,
            timeout_s=settings.check_timeout_s,
        ),
        evidence=gathered.whole,
    )
    decision = gate.decide(
        model=settings.model,
        challenger=number,
        champion=standing.champion,
        gathered=gathered,
        findings=gate_checks.judge(measured, settings),
        settings=settings,
        forced=settings.reason if settings.force else None,
    )
    _write(decision, measured)
    if decision.promotes:
        decision = _act(decision, standing)
        _write(decision, measured)
    if decision.promoted and decision.outcome == "forced":
        trace = f"Forced past the gate: {decision.forced}"
        text = "\n\n".join(part for part in (challenger.description, trace) if part)
        champions.tag_version(settings.model, number, {}, description=text)
    return Promotion(
        decision=decision,
        registered=registry.registered(settings.model, number),
        run_id=mlflow.active_run().info.run_id,
    )


def _read(settings: PromoteSettings) -> tuple[Standing, ModelVersion]:
    standing = champions.read_standing(settings.model)
    version = champions.find_version(settings.model, settings.version)
    if standing.champion == str(version.version):
        raise InputError(f"model {settings.model}: version {version.version} is the champion already")
    return standing, version


def _write(decision: Decision, measured: gate_checks.Measured) -> None:
    """Leaves the trace: before anything is changed, lest a process that dies leaves none, and when it is done."""
    clean = measured.clean
    content = gate.to_dict(decision) | {
        "clean_process": clean if isinstance(clean, str) else dataclasses.asdict(clean)
    }
    mlflow.log_dict(content, f"{GATE_FOLDER}/{gate_report.GATE_JSON}")
    mlflow.log_text(gate_report.render(decision), f"{GATE_FOLDER}/{gate_report.GATE_MD}")
    about = {
        champions.DECISION_TAG: mlflow.active_run().info.run_id,
        "gate_time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    champions.tag_version(decision.model, decision.challenger, gate_report.tags(decision) | about)


def _act(decision: Decision, standing: Standing) -> Decision:
    """Makes it the champion, unless the place was taken meanwhile; gives the decision with what came of it."""
    try:
        champions.set_champion(decision.model, decision.challenger, expected=standing)
    except InputError as error:
        return dataclasses.replace(decision, aborted=str(error))
    return dataclasses.replace(decision, done=True)
