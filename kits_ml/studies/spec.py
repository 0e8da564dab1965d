"""A study's file: read, and checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kits_ml import models
from kits_ml.config import SearchSettings, TrainSettings
from kits_ml.data.cases import find_cases
from kits_ml.errors import InputError
from kits_ml.options import read_config
from kits_ml.settings import suggestion
from kits_ml.studies.space import Space, check_values, parse_space
from kits_ml.studies.strategies import SINGLE_OBJECTIVE, make_pruner, make_sampler, parse_strategy
from kits_ml.training.callbacks import SELECTION_METRIC

#: What a search may look for, and which way is better.
DIRECTIONS = {
    SELECTION_METRIC: "maximize",
    "gflops": "minimize",
    "num_parameters": "minimize",
    "training_minutes": "minimize",
}

_KEYS = ("architectures", "base", "space", "own", "sampler", "pruner", "objectives", *SearchSettings.names())
#: Of the base, what the file says elsewhere, and what would look at the test patients or write where trials must not.
_NOT_IN_BASE = {
    "architecture": "architectures",
    "num_folds": "num_folds at the top of the file",
    "fold": "num_folds at the top of the file",
    "register": "nothing: trials are never registered",
    "promote": "nothing: trials are never registered",
    "init_from": "nothing: trials start with fresh weights",
    "resume": "nothing: trials are not gone on with",
    "resume_run": "nothing: trials are not gone on with",
    "as_reported": "nothing: the report's metric decides nothing",
    "as_reported_metrics": "nothing: a metric as reported decides nothing",
    "run_name": "nothing: runs are named by architecture and trial",
    "experiment": "--experiment",
}
#: Two trainings with a thread each do more than one with two, see `experiments/benchmarks/study_workers.md`.
_BESIDE_OTHERS = MappingProxyType({"num_threads": 1})
#: What may change between two calls: more of the same.
_BUDGET = ("trials", "minutes", "max_failed")


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What to search, how and how long.

    Attributes:
        source: the file, for messages.
        document: what the file says, as plain values.
        search: name, budget, seed, folds.
        architectures: names, in order.
        fixed: by architecture, the settings that all its trials share.
        spaces: by architecture, the distributions of those that trials choose.
        objectives: names from `DIRECTIONS`; the first is the score.
        sampler, pruner: names of Optuna's with arguments.
    """

    source: str
    document: Mapping[str, Any] = field(repr=False)
    search: SearchSettings
    architectures: tuple[str, ...]
    fixed: Mapping[str, Mapping[str, Any]]
    spaces: Mapping[str, Space]
    objectives: tuple[str, ...]
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]

    @property
    def directions(self) -> list[str]:
        """`maximize` or `minimize`, by objective."""
        return [DIRECTIONS[name] for name in self.objectives]

    def settings(self, architecture: str, chosen: Mapping[str, Any], *, fold: int = 0) -> TrainSettings:
        """The settings of a training.

        Raises:
            InputError: values that do not go together.
        """
        return self.training(architecture, chosen, {"fold": fold})

    def training(
        self, architecture: str, chosen: Mapping[str, Any], changes: Mapping[str, Any] = MappingProxyType({})
    ) -> TrainSettings:
        """The settings of a training that shares the machine with others; nothing is registered.

        Raises:
            InputError: values that do not go together.
        """
        given = {**_BESIDE_OTHERS, **self.configuration(architecture, chosen), **changes, "register": False}
        return TrainSettings.from_mapping(given, source=self.search.name)

    def configuration(self, architecture: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What `train --config` takes for a trial: all that the study fixed or the trial chose."""
        return {"architecture": architecture, **self.fixed[architecture], **_folds(self.search), **chosen}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """The keys in which another document differs, the budget aside."""
        keys = {*self.document, *other} - set(_BUDGET)
        return sorted(key for key in keys if self.document.get(key) != other.get(key))


def read_spec(path: str) -> StudySpec:
    """Reads and checks a study's file.

    Raises:
        InputError: anything that is wrong with it, naming file and key.
    """
    return parse_spec(read_config(path), source=path)


def parse_spec(document: Mapping[str, Any], *, source: str) -> StudySpec:
    """Checks what a study's file says; see `read_spec`."""
    for key in document:
        if key not in _KEYS:
            raise InputError(f"{source}: unknown key {key!r}{suggestion(key, _KEYS)}")
    search = _search_settings(document, source)
    architectures = _architectures(document.get("architectures"), source)
    own = _own(document.get("own", {}), architectures, source)
    base = _base(document.get("base", {}), where=f"{source}: base")
    shared = parse_space(document.get("space", {}), where=f"{source}: space")
    fixed, spaces = {}, {}
    for name in architectures:
        where = f"{source}: own.{name}"
        own_space = parse_space(own.get(name, {}).get("space", {}), where=f"{where}.space")
        fixed[name] = {**base, **_base(own.get(name, {}).get("base", {}), where=f"{where}.base")}
        spaces[name] = {**{one: shared[one] for one in shared if one not in fixed[name] or one in base}, **own_space}
        _check_architecture(name, fixed[name], spaces[name], source=source)
        _check_together({**fixed[name], "architecture": name, **_folds(search)}, source=source)
    objectives = _objectives(document.get("objectives", [SELECTION_METRIC]), source)
    sampler, pruner = _strategies(document, objectives, search, source)
    return StudySpec(
        source=source,
        document=json.loads(json.dumps(document, default=str)),
        search=search,
        architectures=architectures,
        fixed=fixed,
        spaces=spaces,
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
    )


def check_data(spec: StudySpec) -> None:
    """Looks whether the cases are there, lest every trial fails for want of them.

    Raises:
        InputError: no such folder, or no cases in it.
    """
    for folder in dict.fromkeys(fixed.get("data") for fixed in spec.fixed.values()):
        if folder is not None:  # else phantom cases are made
            find_cases(folder)


def _search_settings(document: Mapping[str, Any], source: str) -> SearchSettings:
    given = {name: document[name] for name in SearchSettings.names() if name in document}
    try:
        return SearchSettings.from_mapping(given, source=source)
    except InputError as error:
        raise InputError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error


def _architectures(names: Any, source: str) -> tuple[str, ...]:
    where = f"{source}: architectures"
    if not isinstance(names, list) or not names:
        raise InputError(f"{where}: found {names!r}, expected a list of names")
    for number, name in enumerate(names):
        if name not in models.ARCHITECTURES:
            raise InputError(f"{where}: unknown {name!r}{suggestion(str(name), list(models.ARCHITECTURES))}")
        if name in names[:number]:
            raise InputError(f"{where}: found {name!r} twice, expected each once")
    return tuple(names)


def _own(entries: Any, architectures: tuple[str, ...], source: str) -> Mapping[str, Any]:
    where = f"{source}: own"
    if not isinstance(entries, dict):
        raise InputError(f"{where}: found {entries!r}, expected base and space by architecture")
    for name, entry in entries.items():
        if name not in architectures:
            raise InputError(f"{where}: {name!r} is not among architectures{suggestion(str(name), architectures)}")
        if not isinstance(entry, dict) or not set(entry) <= {"base", "space"}:
            raise InputError(f"{where}.{name}: found {entry!r}, expected base or space")
    return entries


def _base(entries: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(entries, dict):
        raise InputError(f"{where}: found {entries!r}, expected settings as `name: value`")
    for name in entries:
        if name in _NOT_IN_BASE:
            raise InputError(f"{where}.{name}: does not stand here, expected {_NOT_IN_BASE[name]}")
    try:
        TrainSettings.from_mapping(entries, source=where)
    except InputError as error:
        message = str(error).removeprefix(f"{where}: ")
        raise InputError(f"{where}: {message}") from error
    return dict(entries)


def _check_architecture(name: str, fixed: Mapping[str, Any], space: Space, *, source: str) -> None:
    both = sorted(set(fixed) & set(space))
    if both:
        raise InputError(f"{source}: {both[0]}: found under base and in the space of {name}, expected one of the two")
    if not space:
        raise InputError(f"{source}: space: {name} has nothing to search, expected at least one setting")
    check_values(space, {**fixed, "architecture": name}, where=f"{source}: space")
    if "deep_supervision" in space and not models.ARCHITECTURES[name].deep_supervision:
        raise InputError(
            f"{source}: space.deep_supervision: not for {name}, expected it under own of those that have it"
        )


def _check_together(fixed: Mapping[str, Any], *, source: str) -> None:
    """Makes the settings once: what does not go together would fail every trial."""
    try:
        TrainSettings.from_mapping(fixed)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _folds(search: SearchSettings) -> dict[str, int]:
    return {"num_folds": search.num_folds} if search.num_folds else {}


def _objectives(names: Any, source: str) -> tuple[str, ...]:
    where = f"{source}: objectives"
    if not isinstance(names, list) or not names or names[0] != SELECTION_METRIC:
        raise InputError(f"{where}: found {names!r}, expected a list that begins with {SELECTION_METRIC}")
    for number, name in enumerate(names):
        if name not in DIRECTIONS:
            raise InputError(f"{where}: unknown {name!r}{suggestion(str(name), list(DIRECTIONS))}")
        if name in names[:number]:
            raise InputError(f"{where}: found {name!r} twice, expected each once")
    return tuple(names)


def _strategies(
    document: Mapping[str, Any], objectives: tuple[str, ...], search: SearchSettings, source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    several = len(objectives) > 1
    default_sampler, default_pruner = ("NSGAIISampler", "NopPruner") if several else ("TPESampler", "MedianPruner")
    sampler = parse_strategy(document.get("sampler", default_sampler), key="sampler", where=source)
    pruner = parse_strategy(document.get("pruner", default_pruner), key="pruner", where=source)
    make_sampler(sampler, seed=search.seed, where=f"{source}: sampler")
    make_pruner(pruner, where=f"{source}: pruner")
    if several and pruner["name"] != "NopPruner":
        raise InputError(
            f"{source}: pruner: found {pruner['name']} with {len(objectives)} objectives, expected NopPruner: "
            "Optuna cannot prune a search for several"
        )
    if several and sampler["name"] in SINGLE_OBJECTIVE:
        raise InputError(f"{source}: sampler: {sampler['name']} is for one objective, expected NSGAIISampler")
    if pruner["name"] == "WilcoxonPruner" and not search.num_folds:
        raise InputError(
            f"{source}: pruner: WilcoxonPruner compares patients of finished folds, expected num_folds of at least 2"
        )
    return sampler, pruner
