"""What all settings can do: be declared with help and range, be checked, be made from a mapping."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from kits_ml.errors import InputError


def setting(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with what a person needs to know about it.

    Args:
        default: the one place where the default is written; `dataclasses.MISSING` for a required setting.
        help: one line for `--help`.
        unit: the unit of a number, shown with the help.
        minimum, maximum: the closed range a number must lie in; one with a fraction is finite without them too.
    """
    metadata = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


REQUIRED = dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all settings can do: be checked, be made from a mapping, become one again."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field, hints[field.name], getattr(self, field.name))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, source: str = "settings") -> Self:
        """Makes settings from names and values.

        Args:
            mapping: values by setting name; what is missing takes its default.
            source: where the mapping came from, for the error message.

        Raises:
            InputError: an unknown name (with the nearest known one), a missing required setting or a bad value.
        """
        known = cls.names()
        for name in mapping:
            if name not in known:
                raise InputError(f"{source}: unknown setting {name!r}{suggestion(name, known)}")
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in mapping:
                raise InputError(f"{source}: setting {field.name!r} is required ({field.metadata['help']})")
        return cls(**mapping)

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings, in order."""
        return [field.name for field in dataclasses.fields(cls)]

    def to_dict(self) -> dict[str, Any]:
        """Names and values, in order; what `from_mapping` takes."""
        return dataclasses.asdict(self)

    def select(self, cls: type[Settings]) -> Any:
        """The part of these settings that another (base) class holds."""
        return cls(**{name: getattr(self, name) for name in cls.names()})


def suggestion(name: str, known: Sequence[str]) -> str:
    """`"; did you mean 'x'?"` where a known name is near, else the known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}"


def value_type(hint: Any) -> tuple[type, tuple[str, ...] | None, bool]:
    """What an annotation means: the plain type, its choices (`Literal`), and whether `None` is allowed."""
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        (hint,) = members
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), optional
    return hint, None, optional


def _check(field: dataclasses.Field, hint: Any, value: Any) -> None:
    plain, choices, optional = value_type(hint)
    if value is None and optional:
        return
    if choices is not None:
        if value not in choices:
            raise InputError(f"{field.name}: found {value!r}, expected one of {', '.join(choices)}")
        return
    accepted = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise InputError(f"{field.name}: found {value!r}, expected {_TYPE_NAMES[plain]}")
    if plain is float and not abs(value) <= sys.float_info.max:  # also a whole number that no float can hold
        raise InputError(f"{field.name}: found {value!r}, expected a finite number")
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise InputError(f"{field.name}: found {value!r}, expected {bounds}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
