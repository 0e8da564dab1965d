"""Reads uploads in a process of its own: what a stranger's file does to a decoder, it does not do to the service.

A file that makes a decoder crash, eat memory or never come back costs that process, which is replaced, and its sender
gets an error. It answers by pickles, so this is no wall against who takes the process over. It lives on between
uploads, for it takes a second to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from kits_ml.data.volumes import Volume
from kits_ml.serving import unpacking
from kits_ml.serving.jobs import Job
from kits_ml.serving.limits import Limits
from kits_ml.serving.refusals import RefusedError
from kits_ml.serving.uploads import Kind

#: Memory to work with beside the volume, which is int16, and float32 beside it while it becomes that.
_WORKING_BYTES, _BYTES_PER_VOXEL = 1 << 28, 6

_LOOK_SECONDS = 0.1
_ARRAY_NAME = "volume.npy"


class Reader:
    """One process that reads one upload at a time.

    Args:
        limits: for uploads.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Starts the process where there is none that lives."""
        if self._process and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_read_until_closed, args=(theirs, self.limits), daemon=True)
        self._process.start()
        theirs.close()

    def read(self, path: Path, kind: Kind, job: Job) -> Volume:
        """Reads an upload, see `unpacking.read_upload`.

        Raises:
            RefusedError: what is wrong with it.
            StoppedJobError: nobody waits for it any more.
        """
        self.start()
        try:
            self._connection.send((path, kind))
            while not self._connection.poll(_LOOK_SECONDS):
                job.check()
            answer = self._connection.recv()
        except (EOFError, OSError) as error:  # it died: by a decoder, or by who shares out the memory
            self._replace()
            raise RefusedError(422, "the upload cannot be read: reading it ended the reader") from error
        except BaseException:
            self._replace()
            raise
        if isinstance(answer, Exception):
            raise answer
        array = np.load(path.with_name(_ARRAY_NAME))
        return dataclasses.replace(answer, array=answer.geometry.to_house(array))

    def close(self) -> None:
        """Ends the process."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _replace(self) -> None:
        self.close()
        self.start()  # now, so that it is there for the next upload


def _read_until_closed(connection: Connection, limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which finishes what it has
    _limit_memory(limits)
    with contextlib.suppress(EOFError, OSError):
        while True:
            path, kind = connection.recv()
            connection.send(_read(path, kind, limits))


def _read(path: Path, kind: Kind, limits: Limits) -> Volume | Exception:
    """The volume without its voxels, which are in a file beside it."""
    try:
        volume = unpacking.read_upload(path, kind, limits)
        # in the file's order of axes the voxels lie as they were read
        _save(path.with_name(_ARRAY_NAME), volume.geometry.to_file(volume.array))
    except RefusedError as error:
        return error
    except MemoryError:
        return RefusedError(413, "the upload needs more memory than the service gives it")
    except Exception as error:
        return RuntimeError(f"reading an upload failed: {type(error).__name__}: {error}")
    return dataclasses.replace(volume, array=np.empty((0, 0, 0), volume.array.dtype))


def _save(path: Path, array: np.ndarray) -> None:
    """Raises `RefusedError` (507) where it does not fit; NumPy's error does not say that the disk is full."""
    try:
        np.save(path, array)
    except OSError as error:
        raise RefusedError(507, "no space left to unpack the upload") from error


def _limit_memory(limits: Limits) -> None:
    """Address space beyond what libraries and their threads have taken already. Only Linux keeps such a limit."""
    if sys.platform != "linux":
        return
    import resource  # Windows has none

    most = psutil.Process().memory_info().vms + _WORKING_BYTES + _BYTES_PER_VOXEL * limits.num_voxels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
