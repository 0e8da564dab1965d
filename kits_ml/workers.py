"""The same work on many cases, in several processes, with a progress bar; one bad case does not stop the rest."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm

from kits_ml.errors import InputError


def run_cases(
    function: Callable[..., Any],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    num_workers: int,
    description: str,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Calls a function once a case.

    Args:
        function: importable (a module's top level), for it is sent to worker processes.
        tasks: keyword arguments by case name.
        num_workers: processes; with 1 everything runs in this one.
        description: what the progress bar says.

    Returns:
        Results by case name, and the messages of the cases that raised an `InputError`. Any other error is a fault
        of the program and is raised at once.
    """
    results: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with tqdm(total=len(tasks), desc=description, unit="case", disable=not tasks) as bar:
        for name, outcome in _outcomes(function, tasks, num_workers):
            if isinstance(outcome, InputError):
                failures[name] = str(outcome)
                bar.write(f"{name}: {outcome}", file=sys.stderr)
            else:
                results[name] = outcome
            bar.update()
    return {name: results[name] for name in tasks if name in results}, failures


def _outcomes(
    function: Callable[..., Any], tasks: Mapping[str, Mapping[str, Any]], num_workers: int
) -> Iterator[tuple[str, Any]]:
    if num_workers == 1 or len(tasks) <= 1:
        for name, arguments in tasks.items():
            yield name, _attempt(function, arguments)
        return
    # spawn: a fork of a process with TensorFlow's or PyTorch's threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(tasks)), mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(_attempt, function, arguments): name for name, arguments in tasks.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    """Processes are what runs side by side here; threads of each would only take turns.

    Numerical libraries read this when they are imported, which a fresh process does with its first task.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _attempt(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except InputError as error:
        return error
