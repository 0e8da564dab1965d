"""Batches that are made before they are asked for, beside the training step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes things by number, and the next ones meanwhile, in threads.

    With TensorFlow alone the dataset does so too (`runtime.feed`), in one thread; with JAX and PyTorch a step would
    wait for its batch.

    Args:
        make: from a number to the thing; any thread may call it, in any order and more than once.
        num_threads: how many are made at once; one more waits.
    """

    def __init__(self, make: Callable[[int], T], *, num_threads: int):
        self.make = make
        self.num_ahead = num_threads + 1
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="batches")
        self._waiting: dict[int, Future[T]] = {}
        self._lock = threading.Lock()

    def get(self, number: int) -> T:
        """Thing `number`; those after it are begun, and what lies elsewhere is forgotten."""
        with self._lock:
            wanted = range(number, number + self.num_ahead + 1)
            for other in [one for one in self._waiting if one not in wanted]:
                self._waiting.pop(other).cancel()
            for one in wanted:
                if one not in self._waiting:
                    self._waiting[one] = self._pool.submit(self.make, one)
            found = self._waiting.pop(number)
        return found.result()
