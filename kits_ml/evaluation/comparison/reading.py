"""Scores a case from tables: our own `scores.csv`, or anyone's table of case, algorithm and score."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml import labels
from kits_ml.errors import InputError
from kits_ml.evaluation import tables

#: What of our own tables can be compared: each has a better end.
METRICS = ("dice", "iou", "surface_dice", "precision", "recall", "hd95_mm", "mean_surface_distance_mm")

#: Parts of the names of metrics of which less is better, ours and others'.
_LOWER_IS_BETTER = ("_mm", "distance", "hausdorff", "hd95", "assd", "msd", "error", "loss")

#: Columns of anyone's table: those it must have, and those it may.
REQUIRED_COLUMNS = ("case", "score")
REPLICATE_COLUMNS = ("seed", "fold")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One score.

    Attributes:
        case: the patient.
        algorithm: what was scored.
        replicate: which seed, fold or run of it.
        score: NaN where it has no value (a surface distance of an empty mask).
        region: what it is of: a key of `labels.REGIONS`, `both`, or empty where the table does not say.
    """

    case: str
    algorithm: str
    replicate: str
    score: float
    region: str = ""


def is_lower_better(metric: str) -> bool:
    """Whether a metric of this name is a distance, an error or a loss."""
    return any(part in metric.lower() for part in _LOWER_IS_BETTER)


def read_records(
    path: str | Path, *, name: str | None, replicate: str, region: str, metric: str, source: str | None = None
) -> list[Record]:
    """Reads a table of scores, whoever wrote it.

    Args:
        path: our own `scores.csv`, or a table with the columns `case`, `algorithm` and `score`. Of the optional ones
            `seed` and `fold` tell repetitions apart, and rows of another `region` or `metric` are left out.
        name: the algorithm; needed where the table does not say, refused where it does.
        replicate: what to call this table among several of the same algorithm, where no seed or fold does.
        region: a key of `labels.REGIONS`, or `both` for the mean of all.
        metric: what to read.
        source: what to call the table in messages; the path by default.

    Raises:
        InputError: no such file, columns that are neither, a value that is no number, the same case twice.
    """
    path, source = Path(path), source or str(path)
    if not path.is_file():
        raise InputError(f"{source}: no such file; expected a table of scores")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            columns = tuple(next(csv.reader(stream), ()))
        if tables.are_ours(columns):
            if name is None:
                raise InputError(f"{source}: does not say which algorithm it is of; expected NAME={source}")
            rows = _own_rows(path, source, name, replicate, metric)
        else:
            rows = _long_rows(path, source, columns, name, replicate, metric)
        return _join_regions(source, rows, region)
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not a table of text; expected CSV") from error
    except csv.Error as error:
        raise InputError(f"{source}: not a table ({error}); expected CSV") from error


_Row = tuple[str, Record]  # region ("" where the table has none) and score


def _own_rows(path: Path, source: str, name: str, replicate: str, metric: str) -> Iterator[_Row]:
    if metric not in METRICS:
        raise InputError(f"metric: found {metric!r}, expected one of {', '.join(METRICS)} for {source}")
    for case in tables.read_scores(path):
        for region, scores in case.regions.items():
            yield (
                region,
                Record(case=case.case, algorithm=name, replicate=replicate, score=getattr(scores, metric)),
            )


def _long_rows(
    path: Path, source: str, columns: tuple[str, ...], name: str | None, replicate: str, metric: str
) -> Iterator[_Row]:
    needed = REQUIRED_COLUMNS if name else (REQUIRED_COLUMNS[0], "algorithm", REQUIRED_COLUMNS[1])
    if not set(needed) <= set(columns):
        raise InputError(
            f"{source}: found columns {', '.join(columns) or 'nothing'}; expected {', '.join(needed)} "
            "(and seed, fold, region, metric), or a scores.csv of ours"
        )
    if name and "algorithm" in columns:
        raise InputError(f"{source}: found a name before it and a column algorithm; expected one of them")
    metrics = set()
    any_row = False
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            where = f"{source}: line {reader.line_num}"
            metrics.add(row.get("metric"))
            if "metric" in columns and row["metric"] != metric:
                continue
            any_row = True
            case, algorithm = row["case"], name or row["algorithm"]
            if not case or not algorithm:
                raise InputError(f"{where}: found no {'algorithm' if case else 'case'}, expected its name")
            told = [f"{column} {row[column]}" for column in REPLICATE_COLUMNS if row.get(column)]
            score = _number(row["score"], where)
            record = Record(case=case, algorithm=algorithm, replicate=", ".join(told) or replicate, score=score)
            yield row.get("region") or "", record
    if not any_row:
        found = ", ".join(sorted(filter(None, metrics))) or "no rows"
        raise InputError(f"{source}: found {found}, expected rows of metric {metric!r}")


def _number(text: str | None, where: str) -> float:
    """A finite number, or NaN for an empty cell and for what R and pandas write there."""
    text = (text or "").strip()
    if text.lower() in ("", "na", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: found score {text!r}, expected a number") from error
    if math.isinf(value):
        raise InputError(f"{where}: found score {text}, expected a finite number or an empty cell")
    return value


def _join_regions(source: str, rows: Iterator[_Row], region: str) -> list[Record]:
    """Keeps the region that was asked for, or averages those there are; a NaN in one makes the mean one."""
    wanted = tuple(labels.REGIONS) if region == "both" else (region,)
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    regions = set()
    for row_region, record in rows:
        regions.add(row_region)
        if row_region and row_region not in wanted:
            continue
        scores = found.setdefault((record.case, record.algorithm, record.replicate), {})
        if row_region in scores:
            what = ", ".join(filter(None, (record.algorithm, record.replicate, row_region)))
            raise InputError(f"{source}: second score of {record.case} ({what}); expected one")
        scores[row_region] = record.score
    if not found:
        raise InputError(
            f"{source}: found {', '.join(sorted(regions)) or 'no rows'}, expected rows of region {region!r}"
        )
    return [_join(source, key, scores, region) for key, scores in found.items()]


def _join(source: str, key: tuple[str, str, str], scores: Mapping[str, float], region: str) -> Record:
    case, algorithm, replicate = key
    wanted = tuple(labels.REGIONS) if region == "both" else (region,)
    told = set(scores) != {""}
    if told and set(scores) != set(wanted):
        have = ", ".join(one or "no region" for one in sorted(scores))
        raise InputError(f"{source}: {case} of {algorithm} has scores for {have}; expected {', '.join(wanted)}")
    return Record(
        case=case,
        algorithm=algorithm,
        replicate=replicate,
        score=sum(scores.values()) / len(scores),
        region=region if told else "",
    )
