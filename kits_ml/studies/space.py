"""The search space: settings by name, each with a range or choices, as Optuna's distributions."""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kits_ml.config import CheckpointSettings, SelectionSettings, SplitSettings, TrainSettings
from kits_ml.errors import InputError
from kits_ml.settings import suggestion, value_type

#: What a trial may not choose: scores on other patients cannot be compared, and the rest decides no result.
NOT_SEARCHABLE = frozenset(
    {
        *SplitSettings.names(),
        *SelectionSettings.names(),
        *CheckpointSettings.names(),
        *("architecture", "data", "prepared", "num_workers", "skip_failed_cases", "seed", "num_threads"),
        *("experiment", "run_name", "model_name", "register", "promote", "onnx"),
        *("as_reported", "as_reported_metrics"),
    }
)

_KEYS = {"range": ("low", "high", "step", "log"), "choices": ("choices",)}

Space = Mapping[str, BaseDistribution]


def parse_space(entries: Any, *, where: str) -> dict[str, BaseDistribution]:
    """Reads a search space.

    Args:
        entries: by name of a setting, `{low, high}` with `step` or `log` for a number, and `{choices: [...]}`, or
            just the list, for anything.
        where: file and key, for the error message.

    Raises:
        InputError: no mapping, an unknown setting or one that may not be searched, an empty range, no number where
            one belongs.
    """
    if not isinstance(entries, dict):
        raise InputError(f"{where}: found {entries!r}, expected settings with a range or choices")
    hints = typing.get_type_hints(TrainSettings)
    found = {}
    for name, entry in entries.items():
        if name not in hints:
            raise InputError(f"{where}.{name}: unknown setting {name!r}{suggestion(str(name), list(hints))}")
        if name in NOT_SEARCHABLE:
            raise InputError(f"{where}.{name}: is the same for all trials; expected it under base, or not at all")
        found[name] = _distribution(entry, hints[name], where=f"{where}.{name}")
    return found


def check_values(space: Space, fixed: Mapping[str, Any], *, where: str) -> None:
    """Tries the ends of each range and each choice as settings.

    Args:
        space: the distributions.
        fixed: the other settings.
        where: file and key, for the error message.

    Raises:
        InputError: a value that the setting does not take.
    """
    for name, distribution in space.items():
        for value in _ends(distribution):
            try:
                TrainSettings.from_mapping({**fixed, name: value})
            except InputError as error:
                # a rule that binds it to another that is searched too may be met by other values of that one
                others = [other for other in space if other != name and other in str(error)]
                if str(error).startswith(f"{name}:") and not others:
                    raise InputError(f"{where}.{error}") from error


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """Lets a trial choose a value for each setting of the space."""
    return {name: _suggest(trial, name, distribution) for name, distribution in space.items()}


def _suggest(trial: optuna.trial.BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    kind = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return kind(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _distribution(entry: Any, hint: Any, *, where: str) -> BaseDistribution:
    entry = {"choices": entry} if isinstance(entry, list) else entry
    if not isinstance(entry, dict) or not ("choices" in entry or {"low", "high"} <= set(entry)):
        raise InputError(f"{where}: found {entry!r}, expected low and high, or choices")
    known = _KEYS["choices" if "choices" in entry else "range"]
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{suggestion(str(key), known)}")
    if "choices" in entry:
        return _choices(entry["choices"], where=where)
    plain, literal, _ = value_type(hint)
    if literal or plain not in (int, float):
        raise InputError(f"{where}: found a range for a setting that is no number, expected choices")
    return _range(entry, plain, where=where)


def _choices(choices: Any, *, where: str) -> CategoricalDistribution:
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{where}: found choices {choices!r}, an empty range; expected a list of values")
    if len({repr(choice) for choice in choices}) < len(choices):
        raise InputError(f"{where}: found a choice twice in {choices!r}, expected each once")
    if not all(choice is None or isinstance(choice, bool | int | float | str) for choice in choices):
        raise InputError(f"{where}: found choices {choices!r}, expected numbers, text, true, false or null")
    return CategoricalDistribution(choices)


def _range(entry: Mapping[str, Any], plain: type, *, where: str) -> FloatDistribution | IntDistribution:
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: found log {log!r}, expected true or false")
    numbers = {key: _number(entry[key], plain, where=f"{where}.{key}") for key in entry if key != "log"}
    if numbers["low"] > numbers["high"]:
        raise InputError(
            f"{where}: an empty range: low {numbers['low']:g} is above high {numbers['high']:g}; expected low <= high"
        )
    try:
        return (IntDistribution if plain is int else FloatDistribution)(**numbers, log=log)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _number(value: Any, plain: type, *, where: str) -> int | float:
    """YAML reads `1e-4` as text, for want of a dot; what reads as a number is one."""
    if isinstance(value, str) and plain is float:
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int if plain is int else int | float):
        raise InputError(f"{where}: found {value!r}, expected a {'whole ' if plain is int else ''}number")
    if not math.isfinite(value):
        raise InputError(f"{where}: found {value}, expected a finite number")
    return plain(value)


def _ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high
