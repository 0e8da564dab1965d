"""Samplers and pruners: Optuna's own, by their names, and one seed that makes trials repeatable."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from kits_ml.errors import InputError, first_line
from kits_ml.settings import suggestion

#: Samplers that stand for one sequence, which all trials must count on in.
ONE_SEQUENCE = frozenset({"QMCSampler"})
#: Samplers that Optuna offers for one objective alone.
SINGLE_OBJECTIVE = frozenset({"CmaEsSampler"})
#: Packages that Optuna imports only when the sampler first draws.
NEEDS = {"CmaEsSampler": ("cmaes",), "GPSampler": ("scipy", "torch")}
#: Samplers that a study's file cannot describe, and what to take instead.
INSTEAD = {
    "GridSampler": "BruteForceSampler, which tries each combination of the space",
    "PartialFixedSampler": "fixed settings under base",
}


def parse_strategy(entry: Any, *, key: str, where: str) -> dict[str, Any]:
    """Brings `NAME` or `{name: NAME, option: value}` into the latter form; whether it fits is told by making it.

    Raises:
        InputError: neither.
    """
    entry = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(f"{where}: found {key} {entry!r}, expected a name of Optuna's, such as {_EXAMPLES[key]}")
    return dict(entry)


def make_sampler(entry: Mapping[str, Any], *, seed: int, where: str) -> BaseSampler:
    """Makes a sampler of Optuna's.

    Args:
        entry: `name`, and arguments of its class.
        seed: of its random numbers, for classes that take one.
        where: file and key, for the error message.

    Raises:
        InputError: an unknown name or argument, a value that the class does not take, a package that is missing.
    """
    name = entry["name"]
    if name in INSTEAD:
        raise InputError(f"{where}: found {name}, expected {INSTEAD[name]}")
    if "seed" in entry:
        raise InputError(f"{where}.seed: found it here, expected seed at the top of the file")
    cls = _find(name, optuna.samplers, BaseSampler, where=where)
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{where}: {name} needs {package}, which is missing: pip install {package}")
    seeded = {"seed": seed} if "seed" in inspect.signature(cls).parameters else {}
    return _make(cls, {**_arguments(entry), **seeded}, where=where)


def make_pruner(entry: Mapping[str, Any], *, where: str) -> BasePruner:
    """Makes a pruner of Optuna's; `wrapped_pruner` of a PatientPruner is one in the same form.

    Raises:
        InputError: as `make_sampler`.
    """
    cls = _find(entry["name"], optuna.pruners, BasePruner, where=where)
    arguments = _arguments(entry)
    if "wrapped_pruner" in arguments:
        inner = parse_strategy(arguments["wrapped_pruner"], key="pruner", where=where)
        arguments["wrapped_pruner"] = make_pruner(inner, where=f"{where}.wrapped_pruner")
    return _make(cls, arguments, where=where)


class SeededByTrial(BaseSampler):
    """A sampler whose random numbers depend on the study's seed and the trial's number alone.

    So a study that was interrupted goes on as if it had not been, and no two workers draw the same.

    Args:
        entry: of the sampler, see `make_sampler`.
        seed: of the study.
    """

    def __init__(self, entry: Mapping[str, Any], *, seed: int):
        self.entry = dict(entry)
        self.seed = seed
        self.inner = self._make(0)

    def before_trial(self, study, trial):
        self.inner = self._make(trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values: Sequence[float] | None):
        self.inner.after_trial(study, trial, state, values)

    def _make(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.entry["name"] not in ONE_SEQUENCE:
            return make_sampler(self.entry, seed=seed, where="sampler")
        # until a trial is finished, by which the sequence is made, each is drawn by itself: not all of them alike
        entry = {"independent_sampler": optuna.samplers.RandomSampler(seed=seed), **self.entry}
        return make_sampler(entry, seed=self.seed, where="sampler")


_EXAMPLES = {"sampler": "TPESampler", "pruner": "MedianPruner"}


def _arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


def _find(name: str, module: Any, base: type, *, where: str) -> type:
    known = [
        one
        for one in module.__all__
        if inspect.isclass(getattr(module, one)) and issubclass(getattr(module, one), base)
    ]
    known = [one for one in known if not one.startswith("Base")]
    if name not in known:
        raise InputError(f"{where}: unknown {name!r}{suggestion(name, known)}")
    return getattr(module, name)


def _make(cls: type, arguments: Mapping[str, Any], *, where: str) -> Any:
    parameters = inspect.signature(cls).parameters
    for argument in arguments:
        if argument not in parameters:
            raise InputError(
                f"{where}: {cls.__name__} has no argument {argument!r}{suggestion(argument, list(parameters))}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {cls.__name__}: {first_line(error)}") from error
