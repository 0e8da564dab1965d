"""The table of scores: one row a case and region, in `scores.csv`."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kits_ml import files, labels
from kits_ml.errors import InputError
from kits_ml.evaluation.calibration import Calibration
from kits_ml.scores import LESION_SIZE_CLASSES, RegionScores

SCORES_CSV = "scores.csv"

_LESION_COUNTS = ("lesions_true", "lesions_found", "lesions_false")
_FLOATS = tuple(
    field.name
    for field in dataclasses.fields(RegionScores)
    if field.name != "region" and not field.name.startswith("lesions_")
)

#: The columns of the table, in order. Lesion columns are empty for the kidney.
COLUMNS = (
    "case",
    "region",
    *_FLOATS,
    *_LESION_COUNTS,
    *(f"{name}_{size_class}" for name in _LESION_COUNTS for size_class in LESION_SIZE_CLASSES),
    "missing_prediction",
    "slice_spacing_mm",
)


def are_ours(columns: Sequence[str]) -> bool:
    """Whether these are the columns of such a table, in any order: that of earlier versions was another."""
    return sorted(columns) == sorted(COLUMNS)


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """The scores of one case.

    Attributes:
        case: its name, e.g. `"case_00000"`.
        regions: the scores of each of `labels.REGIONS`.
        missing_prediction: there was no prediction; the scores are the worst there are.
        slice_spacing_mm: distance between the reference's slices; NaN where unknown.
        kidney_hu: mean HU of the reference's kidney, see `contrast`; NaN where there is no image.
        confusion: voxels of the scan by true label (outer) and predicted label; empty where they were not counted.
        calibration: of the probabilities; None where there were none.
        prediction_seconds: what the label map took, from the scan in memory; NaN where it was there already.

    The last four stand in `cases.csv` (see `summary`), not in `scores.csv`, and `read_scores` leaves them out.
    """

    case: str
    regions: Mapping[str, RegionScores]
    missing_prediction: bool = False
    slice_spacing_mm: float = math.nan
    kidney_hu: float = math.nan
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration: Calibration | None = None
    prediction_seconds: float = math.nan


def write_scores(path: str | Path, cases: Iterable[CaseScores]) -> None:
    """Writes the table; the file appears whole or not at all.

    Numbers have full precision, NaN and "does not apply" are empty, and a missing prediction is `true`.

    Args:
        path: the csv file.
        cases: rows come in this order, the regions of a case in that of `labels.REGIONS`.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        writer.writerows(_to_row(case, case.regions[region]) for region in labels.REGIONS)
    files.write_bytes(Path(path), text.getvalue().encode())


def read_scores(path: str | Path) -> list[CaseScores]:
    """Reads what `write_scores` wrote.

    Raises:
        InputError: no such file, other columns, a value that is no number, or a case without one row a region.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of scores")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not are_ours(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise InputError(f"{path}: found columns {found}; expected {', '.join(COLUMNS)}")
        rows: dict[str, dict[str, dict[str, str]]] = {}
        for row in reader:
            regions = rows.setdefault(row["case"], {})
            if row["region"] in regions:
                raise InputError(f"{path}: line {reader.line_num}: second row of {row['case']}, {row['region']}")
            regions[row["region"]] = row
    return [_from_rows(path, case, regions) for case, regions in rows.items()]


def _to_row(case: CaseScores, scores: RegionScores) -> dict[str, str]:
    row = {
        "case": case.case,
        "region": scores.region,
        "missing_prediction": "true" if case.missing_prediction else "false",
        "slice_spacing_mm": _number(case.slice_spacing_mm),
    }
    row |= {name: _number(getattr(scores, name)) for name in (*_FLOATS, *_LESION_COUNTS)}
    for name in _LESION_COUNTS:
        for size_class, count in zip(LESION_SIZE_CLASSES, getattr(scores, f"{name}_by_size"), strict=False):
            row[f"{name}_{size_class}"] = str(count)
    return row


def _number(value: float | int | None) -> str:
    """The shortest text that reads back as the same number."""
    return "" if value is None or math.isnan(value) else repr(value) if isinstance(value, int) else repr(float(value))


def _from_rows(path: Path, case: str, rows: Mapping[str, Mapping[str, str]]) -> CaseScores:
    if set(rows) != set(labels.REGIONS):
        raise InputError(f"{path}: {case} has rows for {', '.join(rows)}; expected {', '.join(labels.REGIONS)}")
    try:
        regions = {region: _region_scores(rows[region]) for region in labels.REGIONS}
        slice_spacing_mm = _float(next(iter(rows.values()))["slice_spacing_mm"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {case}: found a value that is no number ({error})") from error
    missing = any(row["missing_prediction"] == "true" for row in rows.values())
    return CaseScores(case=case, regions=regions, missing_prediction=missing, slice_spacing_mm=slice_spacing_mm)


def _region_scores(row: Mapping[str, str]) -> RegionScores:
    lesions: dict[str, int | tuple[int, ...] | None] = {}
    for name in _LESION_COUNTS:
        by_size = [row[f"{name}_{size_class}"] for size_class in LESION_SIZE_CLASSES]
        lesions[name] = int(row[name]) if row[name] else None
        lesions[f"{name}_by_size"] = tuple(int(count) for count in by_size) if row[name] else ()
    return RegionScores(region=row["region"], **{name: _float(row[name]) for name in _FLOATS}, **lesions)


def _float(text: str) -> float:
    return float(text) if text else math.nan
