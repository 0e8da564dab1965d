"""Fixed lists of cases: our `split.json`, nnU-Net's `splits_final.json`, and CSV tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from kits_ml.data.patients import read_rows
from kits_ml.errors import InputError

#: What files call the parts.
PART_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}

Parts = dict[str, list[str]]


def read_split_file(path: str | Path) -> list[Parts]:
    """Reads the case lists of a file.

    Args:
        path: one of

            - JSON `{"train": [...], "validation": [...], "test": [...]}`, as this package writes it;
            - nnU-Net's `splits_final.json`, a list of `{"train": [...], "val": [...]}`, one a fold;
            - CSV with `case` and `part` (train, validation or val, test);
            - CSV with `case` and `fold`: whole numbers from 0, or `test`.

    Returns:
        For each fold, the cases by part, sorted, each once. A file without folds gives one.

    Raises:
        InputError: unreadable, none of these, or with a case in two parts of one fold.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        folds = _read_csv(path)
    elif path.suffix.lower() == ".json":
        folds = _read_json(path)
    else:
        raise InputError(f"{path}: expected fixed lists as .json or .csv")
    for parts in folds:
        _check_apart(parts, path)
    return [{part: sorted(set(names)) for part, names in parts.items()} for parts in folds]


def choose_fold(folds: Sequence[Parts], fold: int, *, path: str | Path) -> Parts:
    """The fold that is asked for; a file without folds has the one fold 0.

    Raises:
        InputError: the file has no such fold.
    """
    if fold >= len(folds):
        raise InputError(f"{path}: fold {fold} is not in it; expected 0 to {len(folds) - 1}")
    return folds[fold]


def check_known(parts: Parts, known: Collection[str], *, path: str | Path, most: int = 5) -> None:
    """Raises an `InputError` that names the first cases of a file that the data do not hold."""
    unknown = [name for names in parts.values() for name in names if name not in known]
    if unknown:
        shown = ", ".join(unknown[:most]) + (", ..." if len(unknown) > most else "")
        raise InputError(
            f"{path}: {len(unknown)} of its cases are not in the data: {shown}; expected names such as {min(known)}"
        )


def nnunet_splits(folds: Sequence[Parts]) -> list[Parts]:
    """Content of nnU-Net's `splits_final.json`; test cases are not in it, they lie in `imagesTs`."""
    return [{"train": list(parts["train"]), "val": list(parts["validation"])} for parts in folds]


def _read_json(path: Path) -> list[Parts]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected JSON with lists of cases") from error
    folds = content if isinstance(content, list) else [content]
    if not folds:
        raise InputError(f"{path}: found an empty list, expected lists of cases")
    return [_parts_of(fold, path) for fold in folds]


def _parts_of(content: Any, path: Path) -> Parts:
    """The parts of a mapping; its other entries (settings, patients) are passed over."""
    parts: Parts = {"train": [], "validation": [], "test": []}
    if not isinstance(content, dict) or not set(content) & set(PART_NAMES):
        raise InputError(f'{path}: found {_shape(content)}, expected {{"train": [...], "validation": [...]}}')
    for key, names in content.items():
        if key not in PART_NAMES:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: {key} holds {_shape(names)}, expected a list of case names")
        parts[PART_NAMES[key]] += names
    return parts


def _read_csv(path: Path) -> list[Parts]:
    with_folds = "fold" in _header(path)
    rows = read_rows(path, ("case", "fold" if with_folds else "part"))
    if not rows:
        raise InputError(f"{path}: no rows, expected a case a row")
    return _folds_of(rows, path) if with_folds else [_parts_of_rows(rows, path)]


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected CSV with case and part, or fold") from error


def _parts_of_rows(rows: Sequence[Mapping[str, str]], path: Path) -> Parts:
    parts: Parts = {"train": [], "validation": [], "test": []}
    for row in rows:
        part = PART_NAMES.get(row["part"].lower())
        if part is None:
            raise InputError(f"{path}: part {row['part']!r} of {row['case']}, expected train, validation or test")
        parts[part].append(row["case"])
    return parts


def _folds_of(rows: Sequence[Mapping[str, str]], path: Path) -> list[Parts]:
    fold_of: dict[str, str] = {}
    for row in rows:
        case, fold = row["case"], row["fold"].lower()
        if fold != "test" and not fold.isdecimal():
            raise InputError(f"{path}: fold {row['fold']!r} of {case}, expected a whole number from 0, or test")
        if fold_of.setdefault(case, fold) != fold:
            raise InputError(f"{path}: {case} is in the folds {fold_of[case]} and {fold}; expected one fold a case")
    numbers = sorted({int(fold) for fold in fold_of.values() if fold != "test"})
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise InputError(f"{path}: found the folds {numbers}, expected 0, 1, ... without a gap, at least two")
    test = [case for case, fold in fold_of.items() if fold == "test"]
    rest = {case: int(fold) for case, fold in fold_of.items() if fold != "test"}
    return [
        {
            "train": [case for case, fold in rest.items() if fold != number],
            "validation": [case for case, fold in rest.items() if fold == number],
            "test": test,
        }
        for number in numbers
    ]


def _check_apart(parts: Parts, path: Path) -> None:
    part_of: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if part_of.setdefault(name, part) != part:
                raise InputError(f"{path}: {name} is in {part_of[name]} and in {part}; expected one part a case")


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, list(value)[:5])) or 'nothing'}"
    return type(value).__name__
