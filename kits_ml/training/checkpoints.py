"""Checkpoints: all that a training needs to go on as if nothing had happened, in one file that appears whole.

Keras' own `BackupAndRestore` keeps weights and the epoch, but not the step whose slices come next, the loss of the
epoch so far, the history, the best weights or the states of random layers.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kits_ml import files
from kits_ml.errors import InputError

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.npz"
#: Grows when a file of an earlier program can no longer be read.
FORMAT = 2
_RECORD = "record"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training at one moment, between two steps.

    Attributes:
        epoch, step: what comes next, counted from 0; `step` is within the epoch.
        arrays: by name of the group, in Keras' own order. `model`: all variables, with the states of batch
            normalisation and random layers. `optimizer`: its moments, averages and count of steps. `metrics`: sums
            of the epoch so far. `best`: the weights of the best epoch, empty before the first. By name of its class:
            those of each callback with `get_arrays`.
        callbacks: what each callback with `get_state` wants to know again, by name of its class; JSON.
        stopped: whether a callback had ended the training.
        fitted: whether the training is over; then only `best` is kept.
        about: what the caller wrote beside it; JSON.
    """

    epoch: int
    step: int
    arrays: Mapping[str, Sequence[np.ndarray]]
    callbacks: Mapping[str, Mapping[str, Any]]
    stopped: bool = False
    fitted: bool = False
    about: Mapping[str, Any]

    def restore(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Gives variables and callbacks their values; those of metrics wait for the epoch to begin.

        Args:
            model: of the architecture and optimiser that the checkpoint is of, compiled, the optimiser built.
            callbacks: those that were there when it was made.

        Raises:
            InputError: other variables than the checkpoint's.
        """
        assign(model.variables, self.arrays["model"], what="model")
        assign(model.optimizer.variables, self.arrays["optimizer"], what="optimizer")
        self.restore_callbacks(callbacks)

    def restore_callbacks(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Gives the callbacks their states; one that the checkpoint does not know is left as it is."""
        for name, callback in _with(callbacks, "get_state").items():
            if name in self.callbacks:
                callback.set_state(self.callbacks[name])
        for name, callback in _with(callbacks, "get_arrays").items():
            if name in self.arrays:
                callback.set_arrays(self.arrays[name])


def capture(
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    epoch: int,
    step: int,
    best: Sequence[np.ndarray],
    about: Mapping[str, Any],
) -> Checkpoint:
    """Takes a checkpoint; the arrays are copies."""
    return Checkpoint(
        epoch=epoch,
        step=step,
        arrays={
            "model": _values(model.variables),
            "optimizer": _values(model.optimizer.variables),
            "metrics": _values(model.metrics_variables),
            "best": best,
            **{name: callback.get_arrays() for name, callback in _with(callbacks, "get_arrays").items()},
        },
        callbacks=states(callbacks),
        stopped=bool(model.stop_training),
        about=about,
    )


def states(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, Mapping[str, Any]]:
    """The states of the callbacks with `get_state()` and `set_state(state)`, a JSON mapping, by name of the class."""
    return {name: callback.get_state() for name, callback in _with(callbacks, "get_state").items()}


def _with(callbacks: Sequence[keras.callbacks.Callback], method: str) -> dict[str, Any]:
    return {type(one).__name__: one for one in callbacks if hasattr(one, method)}


def assign(variables: Sequence[Any], values: Sequence[np.ndarray], *, what: str) -> None:
    """Sets Keras variables.

    Raises:
        InputError: another number of variables, or other shapes.
    """
    found, expected = [value.shape for value in values], [tuple(variable.shape) for variable in variables]
    if len(found) != len(expected):
        raise InputError(f"checkpoint: its {what} has {len(found)} arrays, expected {len(expected)}")
    for one, other in zip(found, expected, strict=True):
        if one != other:
            raise InputError(f"checkpoint: its {what} has an array of shape {one}, expected {other}")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint that appears whole or not at all; an earlier one stays until then.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    record = {
        "format": FORMAT,
        **{name: getattr(checkpoint, name) for name in ("epoch", "step", "callbacks", "stopped", "fitted", "about")},
        "lengths": {group: len(values) for group, values in checkpoint.arrays.items()},
    }
    named = {
        f"{group}.{number}": value
        for group, values in checkpoint.arrays.items()
        for number, value in enumerate(values)
    }
    with files.open_to_write(path) as stream:
        np.savez(
            stream, allow_pickle=False, **{_RECORD: np.frombuffer(json.dumps(record).encode(), np.uint8)}, **named
        )
        stream.flush()
        os.fsync(stream.fileno())  # the name may reach the disk before the bytes do


def read(path: Path, *, only_record: bool = False) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: the file.
        only_record: leave out the arrays, which may be large.

    Raises:
        InputError: no checkpoint, a damaged one, or one of another version of the program.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            record = json.loads(content[_RECORD].tobytes())
            if record["format"] != FORMAT:
                raise InputError(f"{path}: a checkpoint of format {record['format']}, expected {FORMAT}; remove it")
            arrays = {
                group: [] if only_record else [content[f"{group}.{number}"] for number in range(length)]
                for group, length in record["lengths"].items()
            }
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: no checkpoint, or a damaged one ({error}); remove it to start anew") from error
    kept = {name: record[name] for name in ("epoch", "step", "callbacks", "stopped", "fitted", "about")}
    return Checkpoint(arrays=arrays, **kept)


class CheckpointFile:
    """Where the checkpoints of one training go.

    Args:
        folder: of this training alone.
        about: what to write beside each checkpoint; JSON.
        interval_s: time between two within an epoch.
    """

    def __init__(self, folder: Path, *, about: Mapping[str, Any], interval_s: float):
        self.path = folder / CHECKPOINT_FILE
        self.about = dict(about)
        self.interval_s = interval_s
        self._written_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._written_s >= self.interval_s

    def write(self, checkpoint: Checkpoint) -> bool:
        """Writes one; where that fails says so and keeps the one before, and the training can go on.

        Returns:
            Whether it was written.
        """
        try:
            write(self.path, checkpoint)
        except OSError as error:
            log.warning(
                "checkpoint %s: not written (%s); training goes on; a restart begins at the one before, if any",
                *(self.path, error.strerror or error),
            )
            return False
        finally:
            self._written_s = time.monotonic()
        return True


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
