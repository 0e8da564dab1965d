"""A folder of cases -> fingerprints, findings, a selection and a page of plots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml import data_figures, figures, files
from kits_ml.config import InspectSettings, SelectionSettings
from kits_ml.data import cases as case_files
from kits_ml.data.findings import Finding, judge
from kits_ml.data.fingerprint import COLUMNS, Fingerprint, fingerprint_case
from kits_ml.data.selection import Selection, select
from kits_ml.errors import InputError
from kits_ml.workers import run_cases

FINGERPRINT_CSV = "fingerprint.csv"
FINDINGS_CSV = "findings.csv"
SELECTION_CSV = "selection.csv"
OVERVIEW_PNG = "overview.png"


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What was found.

    Attributes:
        fingerprints: of the readable cases, in order of names.
        failures: the messages of the cases that cannot be read.
        findings: remarks, in order of case and severity; an unreadable case is an error named `unreadable`.
        selection: the rule, and which cases it keeps and leaves out.
        output: the folder with the tables and the page of plots.
    """

    fingerprints: list[Fingerprint]
    failures: Mapping[str, str]
    findings: list[Finding]
    selection: Selection
    output: Path


def inspect(settings: InspectSettings) -> Inspected:
    """Measures every case of a folder and writes what it found. Unreadable cases are reported, not raised.

    Raises:
        InputError: no cases, an output that exists, or a rule that contradicts itself or names no existing case.
    """
    output = Path(settings.output)
    written = (FINGERPRINT_CSV, FINDINGS_CSV, SELECTION_CSV, OVERVIEW_PNG)
    for path in (output / name for name in written):
        if path.exists() and not settings.overwrite:
            raise InputError(f"{path}: exists; expected a new folder, or --overwrite true")
    cases = case_files.find_cases(settings.data)
    rule = settings.select(SelectionSettings)
    select([], rule, unreadable={case.name: "not read yet" for case in cases})  # a wrong rule is said before the work
    found, failures = run_cases(
        fingerprint_case,
        {case.name: {"case": case} for case in cases},
        num_workers=settings.num_workers,
        description="inspect",
    )
    fingerprints = list(found.values())
    unreadable = [
        Finding(case=name, level="error", rule="unreadable", message=message) for name, message in failures.items()
    ]
    inspected = Inspected(
        fingerprints=fingerprints,
        failures=failures,
        findings=sorted([*judge(fingerprints), *unreadable], key=lambda finding: finding.case),
        selection=select(fingerprints, rule, unreadable=failures),
        output=output,
    )
    _write(inspected, title=Path(settings.data).name)
    return inspected


def _write(inspected: Inspected, *, title: str) -> None:
    rows = {one.case: one.to_row() for one in inspected.fingerprints}
    rows |= {name: {"case": name, "error": message} for name, message in inspected.failures.items()}
    files.write_csv(inspected.output / FINGERPRINT_CSV, [rows[name] for name in sorted(rows)], [*COLUMNS, "error"])
    files.write_csv(
        inspected.output / FINDINGS_CSV,
        [dataclasses.asdict(finding) for finding in inspected.findings],
        [field.name for field in dataclasses.fields(Finding)],
    )
    reasons = dict.fromkeys(inspected.selection.kept, ()) | dict(inspected.selection.left_out)
    chosen = [
        {"case": name, "selected": not reasons[name], "reasons": "; ".join(reasons[name])} for name in sorted(reasons)
    ]
    files.write_csv(inspected.output / SELECTION_CSV, chosen, ["case", "selected", "reasons"])
    if inspected.fingerprints:
        page = data_figures.overview(
            inspected.fingerprints,
            inspected.findings,
            left_out=set(inspected.selection.left_out),
            title=title,
        )
        figures.save_figure(inspected.output / OVERVIEW_PNG, page)
