"""Which stopped training a command goes on with, and whether it is still the same training."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from kits_ml import runtime
from kits_ml.config import CheckpointSettings, TrainSettings
from kits_ml.errors import InputError, StoppedError
from kits_ml.training import checkpoints
from kits_ml.training.checkpoints import CHECKPOINT_FILE, Checkpoint, CheckpointFile
from kits_ml.training.warm_start import Parent
from kits_ml.workflows.prepare import Prepared

log = logging.getLogger(__name__)

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
            InputError: other cases, another preparation or another split.
        """
        for name, found in _data_digests(prepared).items():
            if found != self.checkpoint.about[name]:
                raise InputError(
                    f"resume: {name} is {found}, but run {self.run_id} was stopped at {self.checkpoint.about[name]}: "
                    "the cases or their split have changed; leave resume out to start anew"
                )

    def load(self) -> Checkpoint:
        """The checkpoint with its arrays."""
        return checkpoints.read(self.path)


def find_stopped(settings: TrainSettings) -> Stopped | None:
    """The training to go on with; None where there is none, or none is wanted.

    Raises:
        InputError: the run has no checkpoint, still runs, or has other settings: the line says which.
    """
    if settings.resume_run:
        path = Path(settings.checkpoints) / settings.resume_run / CHECKPOINT_FILE
        if not path.exists():
            raise InputError(f"resume_run {settings.resume_run}: found no {path}; expected an unfinished training")
        stopped = Stopped(path=path, checkpoint=checkpoints.read(path, only_record=True))
        if _is_running(stopped):
            raise InputError(f"resume_run {settings.resume_run}: still runs, as process {_process(stopped)[0]}")
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
        raise InputError(
            f"resume: run {stopped.run_id}, stopped {stopped.where}, has other settings: {'; '.join(differing)}; "
            "give the same, or leave resume out, or name another folder of checkpoints, to start anew"
        )
    log.info("going on with run %s, stopped %s", stopped.run_id, stopped.where)
    return stopped


def checkpoint_file(
    settings: TrainSettings, prepared: Prepared, *, run_id: str, parent: Parent | None
) -> CheckpointFile:
    """Where the checkpoints of a run go, and what they say of it."""
    about = {
        "run_id": run_id,
        "process": [os.getpid(), psutil.Process().create_time()],
        "settings": _fixed(settings),
        "parent": dataclasses.asdict(parent) if parent else None,
        **_data_digests(prepared),
    }
    folder = Path(settings.checkpoints) / run_id
    return CheckpointFile(folder, about=about, interval_s=60 * settings.checkpoint_minutes)


def forget(file: CheckpointFile) -> None:
    """Removes the checkpoint of a training that needs it no more."""
    shutil.rmtree(file.path.parent, ignore_errors=True)


def way_on(settings: TrainSettings, run_id: str) -> str:
    """What a person does to go on with a run that ended early."""
    if not (Path(settings.checkpoints) / run_id / CHECKPOINT_FILE).exists():
        return "no step was done; cases that are prepared stay so"
    return f"to go on: the same command with --resume true, or --resume_run {run_id}"


def with_way_on(error: StoppedError | KeyboardInterrupt, settings: TrainSettings, run_id: str) -> StoppedError:
    """The error that ends a training on request, and says how to go on."""
    what, number = "stopped by Ctrl-C", int(signal.SIGINT)
    if isinstance(error, StoppedError):
        what, number = str(error), error.exit_code - 128
    return StoppedError(f"{what}; {way_on(settings, run_id)}", signal_number=number)


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
        if not _is_running(stopped):
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


def _process(stopped: Stopped) -> tuple[int, float]:
    return tuple(stopped.checkpoint.about["process"])


def _is_running(stopped: Stopped) -> bool:
    """Whether the process that wrote the checkpoint lives, on this machine; another may have got its number."""
    number, created = _process(stopped)
    try:
        process = psutil.Process(number)
        alive = abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return alive and number != os.getpid()
