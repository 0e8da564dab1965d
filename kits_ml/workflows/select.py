"""Applies the selection rule to cases on disk; what has been measured once is kept."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kits_ml import files
from kits_ml.config import SelectionSettings
from kits_ml.data import cases as case_files
from kits_ml.data.fingerprint import FORMAT_VERSION, Fingerprint, fingerprint_case
from kits_ml.data.selection import LIMITS, Facts, Selection, effective_rule, reasons_by_name, select
from kits_ml.errors import InputError
from kits_ml.workers import run_cases

log = logging.getLogger(__name__)


def select_cases(
    cases: Mapping[str, case_files.Case],
    digests: Mapping[str, str],
    settings: SelectionSettings,
    *,
    cache: Path,
    num_workers: int,
) -> tuple[Selection, dict[str, str]]:
    """Chooses among cases and logs who is left out and why. Cases are only read where the rule has limits.

    Args:
        cases: by name.
        digests: of the cases' files, by name.
        settings: the rule.
        cache: a JSON file of fingerprints by digest, so that no case is measured twice; made where it is missing.
        num_workers: processes that measure.

    Returns:
        The selection, and the messages of cases that could not be read; those are left out.

    Raises:
        InputError: the rule leaves no case, names one that does not exist, or contradicts itself.
    """
    rule = effective_rule(settings)
    facts = {name: Facts(case=name) for name in cases}
    failures: dict[str, str] = {}
    if any(limit in rule for limit in LIMITS):
        out_by_name = reasons_by_name(cases, settings)
        wanted = {name: case for name, case in cases.items() if name not in out_by_name}
        measured, failures = measure_cases(wanted, digests, cache=cache, num_workers=num_workers)
        facts |= {name: Facts.of(one) for name, one in measured.items()}
    readable = [one for name, one in facts.items() if name not in failures]
    selection = select(readable, settings, unreadable=failures)
    if not selection.kept and len(failures) < len(cases):
        raise InputError(f"no case is left: {'; '.join(line.strip() for line in selection.explain()[:3])}")
    if rule:
        for line in selection.explain():
            log.info("%s", line)
    return selection, failures


def measure_cases(
    cases: Mapping[str, case_files.Case], digests: Mapping[str, str], *, cache: Path, num_workers: int
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """Fingerprints from the cache, and measured for the rest.

    Args:
        cases: by name.
        digests, cache, num_workers: as for `select_cases`.

    Returns:
        The fingerprints, and the messages of cases that could not be read, by name.
    """
    known = _read_cache(cache)
    missing = {name: {"case": case} for name, case in cases.items() if digests[name] not in known}
    found, failures = run_cases(fingerprint_case, missing, num_workers=num_workers, description="measure")
    if found:
        known |= {digests[name]: dataclasses.asdict(one) for name, one in found.items()}
        files.write_json(cache, {"format": FORMAT_VERSION, "cases": known})
    for name in cases.keys() - found.keys() - failures.keys():
        found[name] = dataclasses.replace(Fingerprint.from_dict(known[digests[name]]), case=name)
    return found, failures


def _read_cache(path: Path) -> dict[str, Any]:
    """What was measured before; a damaged file or another version counts as nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["cases"] if content["format"] == FORMAT_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
