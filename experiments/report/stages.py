"""Stages: each writes one JSON file when it is done, and is not done again while that file says the same.

A stage's identity is its settings and what the stages that it needs found (their `digest`, where they have one). A
file of another identity, or one that cannot be read, is made anew; the file appears whole or not at all, so a kill
costs no more than the stage itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kits_ml import files
from kits_ml.errors import InputError
from kits_ml.settings import suggestion
from kits_ml.tracking.runs import git_commit

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import describe as describe_machine

#: What a result says of its machine.
PACKAGES = ("keras", "tensorflow", "numpy")

#: What the files of stages hold, by the stage's name.
Records = Mapping[str, Mapping[str, Any]]

#: The results of other stages, by name.
Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One question and its answer.

    Attributes:
        name: of the stage and of its file.
        title: what it does, for the progress line.
        run: from the results of the stages that it needs to its own, which is JSON; NaN is written as null.
        settings: all that decides the result; JSON.
        needs: stages that come before.
        version: raised whenever the same settings would give another result.
    """

    name: str
    title: str
    run: Callable[[Results], Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    version: int = 1

    def identity(self, results: Results) -> str:
        """16 hexadecimal digits that change with the settings and with what came before."""
        before = {name: results[name].get("digest", results[name]) for name in self.needs}
        whole = {"settings": self.settings, "version": self.version, "needs": before}
        return hashlib.blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=8).hexdigest()


def run_stages(
    stages: Sequence[Stage], folder: Path, *, only: Sequence[str] = (), say: Callable[[str], None] = print
) -> dict[str, Mapping[str, Any]]:
    """Goes through the stages in order, and leaves out what is done.

    Args:
        stages: in order: a stage comes after those that it needs.
        folder: of the files, `NAME.json`.
        only: these and what they need; without: all.
        say: takes a line a stage.

    Returns:
        What each stage found, by name.

    Raises:
        InputError: a name that is no stage.
    """
    known = {stage.name: stage for stage in stages}
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"only: no stage {unknown[0]!r}{suggestion(unknown[0], list(known))}")
    wanted = _with_needs(only or list(known), known)
    chosen = [stage for stage in stages if stage.name in wanted]
    results: dict[str, Mapping[str, Any]] = {}
    for number, stage in enumerate(chosen, start=1):
        path, head = folder / f"{stage.name}.json", f"[{number}/{len(chosen)}] {stage.name}: {stage.title}"
        identity = stage.identity(results)
        record = read_record(path, identity=identity)
        if record is None:
            say(f"{head} ...")
            record = _run(stage, results, identity=identity)
            files.write_json(path, record)
            say(f"{head}: {record['seconds']:.0f} s")
        else:
            say(f"{head}: is there, made in {record['seconds']:.0f} s")
        results[stage.name] = record["result"]
    return results


def read_records(stages: Sequence[Stage], folder: Path) -> dict[str, dict[str, Any]]:
    """What is done of some stages, by name; files of other settings, and of what comes after them, are left out."""
    records: dict[str, dict[str, Any]] = {}
    for stage in stages:
        results = {name: record["result"] for name, record in records.items()}
        if all(name in results for name in stage.needs):
            record = read_record(folder / f"{stage.name}.json", identity=stage.identity(results))
            if record is not None:
                records[stage.name] = record
    return records


def read_record(path: Path, *, identity: str | None = None) -> dict[str, Any] | None:
    """A stage's file; None where there is none, it cannot be read, or it is of another identity."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        there = (record["identity"], record["result"], record["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if identity in (None, there[0]) else None


def _run(stage: Stage, results: Results, *, identity: str) -> dict[str, Any]:
    machine, begun = describe_machine(PACKAGES), time.perf_counter()
    result = stage.run({name: results[name] for name in stage.needs})
    return {
        "stage": stage.name,
        "identity": identity,
        "settings": stage.settings,
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": machine,
        "code": git_commit(),
        "result": _plain(result),
    }


def _with_needs(names: Sequence[str], known: Mapping[str, Stage]) -> set[str]:
    found = set(names)
    for name in names:
        found |= _with_needs(known[name].needs, known)
    return found


def _plain(value: Any) -> Any:
    """What JSON holds and gives back as it was: lists for tuples, null for NaN, keys of text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
