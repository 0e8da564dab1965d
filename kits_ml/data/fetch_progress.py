"""What a fetch shows on stderr: a bar for each file on its way and one for all; plain lines where no terminal is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_ONE_READ_BYTES = 1 << 20


class FetchProgress:
    """Bars on a terminal; elsewhere (a log, a pipe) one line for each finished file.

    Args:
        num_files: how many files there are in all.
    """

    def __init__(self, num_files: int):
        self._stream = sys.stderr
        self._is_terminal = self._stream.isatty()
        self._all = tqdm(
            total=num_files, unit="file", desc="all files", file=self._stream, disable=not self._is_terminal
        )
        self._num_files = num_files
        self._num_done = 0

    def say(self, line: str) -> None:
        """A line that stays, above the bars."""
        with tqdm.get_lock():
            tqdm.write(line, file=self._stream)

    @contextmanager
    def file(self, name: str, *, row: int) -> Iterator[Callable[[int, int | None], None]]:
        """A bar for a file on its way.

        Args:
            name: shown before the bar.
            row: the line below the overall bar, from 0; one a worker.

        Yields:
            A function that takes the bytes so far and the size, `None` where it is unknown.
        """
        with tqdm(
            desc=name,
            unit="B",
            unit_scale=True,
            position=row + 1,
            leave=False,
            file=self._stream,
            disable=not self._is_terminal,
        ) as bar:

            def move(num_bytes: int, size: int | None) -> None:
                bar.total = size
                if bar.n == 0 and num_bytes > _ONE_READ_BYTES:
                    bar.initial = num_bytes  # came with an earlier call, and says nothing of the speed now
                bar.update(num_bytes - bar.n)

            yield move

    def done(self, name: str, num_bytes: int | None) -> None:
        """Counts a finished file; `None` bytes if it was there already."""
        with tqdm.get_lock():
            self._num_done += 1
            self._all.update(1)
        if num_bytes is not None and not self._is_terminal:
            self.say(f"{name}: {tqdm.format_sizeof(num_bytes)}B ({self._num_done} of {self._num_files} files)")

    def close(self) -> None:
        """Takes the bars from the screen."""
        self._all.close()
