"""Which stopped training a command goes on with, and whether it is still the same training."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from kits_ml import runtime
from kits_ml.config import CheckpointSettings, TrainSettings
from kits_ml.errors import InputError, OtherTrainingError, StoppedError
from kits_ml.training import checkpoints
from kits_ml.training.checkpoints import CHECKPOINT_FILE, Checkpoint, CheckpointFile
from kits_ml.training.warm_start import Parent
from kits_ml.workflows.prepare import Prepared

log = logging.getLogger(__name__)

#: Beside the checkpoint: held by the process that trains, and let go of by the system when that is killed.
LOCK_FILE = "lock"

#: Settings that decide where and how fast, not what comes out: a training may go on with others.
FREE_SETTINGS = {
    *(name for name in CheckpointSettings.names() if name != "init_from"),
    *("experiment", "run_name", "model_name", "register", "promote", "onnx"),
    *("prepared", "num_workers", "num_threads", "num_loader_threads", "skip_failed_cases"),
}

#: What a training ran on, of `runtime.describe()`, where that is part of what comes out: `auto` says too little.
USED = ("keras_backend", "precision_used", "num_devices")


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A training that was stopped.

    Attributes:
        path: its checkpoint.
        checkpoint: the same without arrays.
    """

    path: Path
    checkpoint: Checkpoint

    @property
    def run_id(self) -> str:
        """Its MLflow run."""
        return self.checkpoint.about["run_id"]

    @property
    def parent(self) -> Parent | None:
        """The model that it started from."""
        parent = self.checkpoint.about["parent"]
        return Parent(**parent) if parent else None

    @property
    def where(self) -> str:
        """How far it came."""
        found = self.checkpoint
        return "after its last epoch" if found.fitted else f"in epoch {found.epoch + 1}, after step {found.step}"

    def check_data(self, prepared: Prepared) -> None:
        """Stops a training that would go on with other slices.

        Raises:
            OtherTrainingError: other cases, another preparation or another split.
        """
        for name, found in _data_digests(prepared).items():
            if found != self.checkpoint.about[name]:
                raise OtherTrainingError(
                    f"resume: {name} is {found}, but run {self.run_id} was stopped at {self.checkpoint.about[name]}: "
                    "the cases or their split have changed; leave resume out to start anew"
                )

    def load(self) -> Checkpoint:
        """The checkpoint with its arrays."""
        return checkpoints.read(self.path)


def find_stopped(settings: TrainSettings) -> Stopped | None:
    """The training to go on with; None where there is none, or none is wanted.

    Raises:
        InputError: the run has no checkpoint or still runs.
        OtherTrainingError: it has other settings: the line says which.
    """
    if settings.resume_run:
        path = Path(settings.checkpoints) / settings.resume_run / CHECKPOINT_FILE
        if not path.exists():
            raise InputError(f"resume_run {settings.resume_run}: found no {path}; expected an unfinished training")
        stopped = Stopped(path=path, checkpoint=checkpoints.read(path, only_record=True))
        if _is_running(path.parent):
            raise InputError(f"resume_run {settings.resume_run}: still runs, in another process")
    elif settings.resume:
        waiting = _waiting(Path(settings.checkpoints))
        if not waiting:
            log.info("resume: no stopped training in %s; starting anew", settings.checkpoints)
            return None
        # sorted keeps the newest first among equals
        stopped = sorted(waiting, key=lambda one: len(_differences(one, settings)))[0]
    else:
        return None
    if differing := _differences(stopped, settings):
        raise OtherTrainingError(
            f"resume: run {stopped.run_id}, stopped {stopped.where}, has other settings: {'; '.join(differing)}; "
            "give the same, or leave resume out, or name another folder of checkpoints, to start anew"
        )
    log.info("going on with run %s, stopped %s", stopped.run_id, stopped.where)
    return stopped


@contextlib.contextmanager
def claimed(settings: TrainSettings, run_id: str) -> Iterator[None]:
    """Holds a run's folder of checkpoints, so that no other process goes on with what runs here.

    A folder that holds no checkpoint in the end is removed.

    Raises:
        InputError: another process has it.
    """
    folder = Path(settings.checkpoints) / run_id
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(folder)
    if lock is None:
        raise InputError(f"resume: run {run_id} still runs, in another process")
    try:
        yield
    finally:
        if not (folder / CHECKPOINT_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def checkpoint_file(
    settings: TrainSettings, prepared: Prepared, *, run_id: str, parent: Parent | None
) -> CheckpointFile:
    """Where the checkpoints of a run go, and what they say of it."""
    about = {
        "run_id": run_id,
        "settings": _fixed(settings),
        "parent": dataclasses.asdict(parent) if parent else None,
        **_data_digests(prepared),
    }
    folder = Path(settings.checkpoints) / run_id
    return CheckpointFile(folder, about=about, interval_s=60 * settings.checkpoint_minutes)


def forget(file: CheckpointFile) -> None:
    """Removes the checkpoint of a training that needs it no more."""
    file.path.unlink(missing_ok=True)


def way_on(settings: TrainSettings, run_id: str) -> str:
    """What a person does to go on with a run that ended early."""
    if not (Path(settings.checkpoints) / run_id / CHECKPOINT_FILE).exists():
        return "no checkpoint was written, so the same command starts anew; cases that are prepared stay so"
    return f"to go on: the same command with --resume true, or --resume_run {run_id}"


def stopped_with(error: StoppedError | KeyboardInterrupt, way: str) -> StoppedError:
    """The error that ends a command on request, and says how to go on."""
    what, number = "stopped by Ctrl-C", int(signal.SIGINT)
    if isinstance(error, StoppedError):
        what, number = str(error), error.exit_code - 128
    return StoppedError(f"{what}; {way}", signal_number=number)


def _fixed(settings: TrainSettings) -> dict[str, Any]:
    kept = {name: value for name, value in settings.to_dict().items() if name not in {*FREE_SETTINGS, "precision"}}
    described = runtime.describe()
    return {**kept, **{name: described[name] for name in USED}}


def _data_digests(prepared: Prepared) -> dict[str, str]:
    return {"data_digest": prepared.store.digest, "split_digest": prepared.split_path.stem}


def _waiting(folder: Path) -> list[Stopped]:
    """The stopped trainings of a folder, the newest first; what cannot be read is left out with a word."""
    found = []
    for path in sorted(folder.glob(f"*/{CHECKPOINT_FILE}"), key=lambda path: -path.stat().st_mtime):
        try:
            stopped = Stopped(path=path, checkpoint=checkpoints.read(path, only_record=True))
        except InputError as error:
            log.warning("%s", error)
            continue
        if not _is_running(path.parent):
            found.append(stopped)
    return found


def _differences(stopped: Stopped, settings: TrainSettings) -> list[str]:
    """Settings that are not those of a stopped training, in words."""
    there: Mapping[str, Any] = stopped.checkpoint.about["settings"]
    return [
        f"{name} {there.get(name, 'unknown')} there, {value} here"
        for name, value in _fixed(settings).items()
        if name not in there or there[name] != value
    ]


def _is_running(folder: Path) -> bool:
    """Whether a process trains the run whose checkpoints these are."""
    lock = _locked(folder)
    if lock is not None:
        lock.release()
    return lock is None


def _locked(folder: Path) -> filelock.BaseFileLock | None:
    """The lock of a run's folder, held now; None where another holds it."""
    lock = filelock.FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    return lock
