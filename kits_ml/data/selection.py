"""Which cases take part: a declarative rule, and for each case that it leaves out, why."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from kits_ml.config import SelectionSettings
from kits_ml.data.fingerprint import Fingerprint
from kits_ml.errors import InputError
from kits_ml.settings import suggestion

#: Limits by name. `report` is the rule of the student report: on KiTS19 it keeps 49 cases, where the report says 48.
PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"all": {}, "report": {"max_slices": 110, "hu_min": -1024.0, "hu_max": 1679.0}}
)

#: The settings that need a case to be read.
LIMITS = ("max_slices", "min_slices", "hu_min", "hu_max", "max_slice_spacing_mm")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rule looks at; None is unknown.

    Attributes:
        case: its name.
        slices: how many.
        hu_min, hu_max: of the whole image.
        slice_spacing_mm: distance between neighbouring slices.
    """

    case: str
    slices: float | None = None
    hu_min: float | None = None
    hu_max: float | None = None
    slice_spacing_mm: float | None = None

    @classmethod
    def of(cls, one: Fingerprint) -> Self:
        """The facts of a fingerprint."""
        return cls(
            case=one.case,
            slices=one.slices,
            hu_min=one.hu.min,
            hu_max=one.hu.max,
            slice_spacing_mm=one.slice_spacing_mm,
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome.

    Attributes:
        rule: the limits that were applied, those of a preset included.
        kept: names of cases, in the order given.
        left_out: for each other case, the reasons.
    """

    rule: Mapping[str, Any]
    kept: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]

    def explain(self) -> list[str]:
        """A line with the rule and the count, then one for each case that was left out."""
        rule = ", ".join(f"{name} {_plain(value)}" for name, value in self.rule.items()) or "no limits"
        lines = [f"selection ({rule}): {len(self.kept)} of {len(self.kept) + len(self.left_out)} cases"]
        return lines + [f"  {name}: {'; '.join(reasons)}" for name, reasons in self.left_out.items()]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        left_out = {name: list(reasons) for name, reasons in self.left_out.items()}
        return {"rule": dict(self.rule), "kept": list(self.kept), "left_out": left_out}


def effective_rule(settings: SelectionSettings) -> dict[str, Any]:
    """What applies: the preset's limits, those set by hand in their place, and the named cases. Unset is absent."""
    by_hand = {
        name: getattr(settings, name)
        for name in (*LIMITS, "cases", "exclude_cases")
        if getattr(settings, name) is not None
    }
    return {**PRESETS[settings.selection], **by_hand}


def select(
    cases: Iterable[Fingerprint | Facts], settings: SelectionSettings, *, unreadable: Mapping[str, str] | None = None
) -> Selection:
    """Applies the rule.

    Args:
        cases: what is known of each case. All limits are inclusive; a case of which a limited fact is unknown is left
            out, with that as the reason.
        settings: the rule.
        unreadable: messages of further cases that could not be read: left out, with the message as the reason.

    Raises:
        InputError: a named case does not exist, or contradicting limits.
    """
    facts = [one if isinstance(one, Facts) else Facts.of(one) for one in cases]
    rule = effective_rule(settings)
    for low, high in (("min_slices", "max_slices"), ("hu_min", "hu_max")):
        if low in rule and high in rule and rule[low] > rule[high]:
            raise InputError(f"{low}: found {_plain(rule[low])}, expected at most {high} {_plain(rule[high])}")
    unreadable = unreadable or {}
    by_name = reasons_by_name([*(one.case for one in facts), *unreadable], settings)
    reasons = {one.case: by_name.get(one.case) or _limits_passed(one, rule) for one in facts}
    reasons |= {name: by_name.get(name) or (message,) for name, message in unreadable.items()}
    return Selection(
        rule=rule,
        kept=tuple(name for name in reasons if not reasons[name]),
        left_out={name: reasons[name] for name in sorted(reasons) if reasons[name]},
    )


def reasons_by_name(names: Collection[str], settings: SelectionSettings) -> dict[str, tuple[str, ...]]:
    """The cases that `cases` and `exclude_cases` leave out, with the reason: nothing needs to be read for that.

    Raises:
        InputError: text that cannot be understood, or a case that is not among `names`.
    """
    wanted = set(names) if settings.cases is None else _named(settings.cases, names, "cases")
    unwanted = set() if settings.exclude_cases is None else _named(settings.exclude_cases, names, "exclude_cases")
    reasons = {}
    for name in names:
        found = ("not among the cases asked for",) * (name not in wanted) + ("excluded by name",) * (name in unwanted)
        if found:
            reasons[name] = found
    return reasons


def _limits_passed(one: Facts, rule: Mapping[str, Any]) -> tuple[str, ...]:
    checks = (
        ("slices", "max_slices", "at most", "{} slices", "number of slices"),
        ("slices", "min_slices", "at least", "{} slices", "number of slices"),
        ("hu_min", "hu_min", "at least", "HU minimum {}", "HU minimum"),
        ("hu_max", "hu_max", "at most", "HU maximum {}", "HU maximum"),
        ("slice_spacing_mm", "max_slice_spacing_mm", "at most", "slices {} mm apart", "slice spacing"),
    )
    reasons = []
    for fact, limit, bound, phrase, subject in checks:
        value = getattr(one, fact)
        if limit not in rule:
            continue
        if value is None:
            reasons.append(f"{subject} unknown")
        elif value > rule[limit] if bound == "at most" else value < rule[limit]:
            reasons.append(f"{phrase.format(_plain(value))}, {bound} {_plain(rule[limit])} allowed")
    return tuple(reasons)


def _named(text: str, names: Collection[str], setting: str) -> set[str]:
    """Cases from text such as `"0-47, 60, case_00123, mine"`; numbers mean `case_` names; a range may have gaps."""
    found = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        numbers = re.fullmatch(r"(\d+)|(?:case_)?(\d+)\s*-\s*(?:case_)?(\d+)", part)
        first, last = (numbers[1] or numbers[2], numbers[1] or numbers[3]) if numbers else (1, 0)
        in_range = range(int(first), int(last) + 1)
        matching = {part} if part in names else {name for name in names if _number_of(name) in in_range}
        if not matching:
            raise InputError(f"{setting}: found {part!r}, no such case{suggestion(part, list(names)[:10])}")
        found |= matching
    return found


def _number_of(name: str) -> int | None:
    match = re.fullmatch(r"case_(\d+)", name)
    return int(match[1]) if match else None


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
