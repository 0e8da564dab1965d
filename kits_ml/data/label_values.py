"""From the numbers in a label file to KiTS's own: 0 background, 1 kidney, 2 tumour, 3 cyst."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import labels
from kits_ml.errors import InputError

#: How data sets call what we know, without case, and with spaces between words. Tumour before mass before kidney:
#: in overlapping regions, as nnU-Net has them for KiTS, the most specific one says what a voxel is.
TUMOUR_NAMES = frozenset({"tumor", "tumors", "tumour", "tumours"})
CYST_NAMES = frozenset({"cyst", "cysts"})
MASS_NAMES = frozenset({"mass", "masses"})
KIDNEY_NAMES = frozenset(
    {"kidney", "kidneys", "parenchyma", "whole kidney", "kidney left", "kidney right", "left kidney", "right kidney"}
    | {f"kidney and {name}" for name in TUMOUR_NAMES | CYST_NAMES | MASS_NAMES}
)
_ORGAN = re.compile(r"^(kidney|renal) (?=(tumou?r|cyst|mass|parenchyma))")


def mapping_from_names(names: Mapping[str, Any], *, source: str) -> dict[int, int]:
    """What a data set's numbers mean, by its names for them.

    Args:
        names: number, or numbers of a region, by name, as in nnU-Net's `dataset.json`; e.g. `{"background": 0,
            "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}`, where 3 is in masses and no tumour: a cyst.
            nnU-Net's `ignore` is passed over, so that a file with such voxels is refused on reading.
        source: the file, for the error message.

    Returns:
        KiTS value by the data set's value.

    Raises:
        InputError: a name that is none of ours, masses of which nothing says whether they are tumours, no kidney.
    """
    covering: dict[int, set[str]] = {}
    for name, numbers in names.items():
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 255:
                raise InputError(f"{source}: label {name!r} is {number!r}, expected a whole number from 0 to 255")
            covering.setdefault(number, set()).add(_plain(name))
    tumours_are_named = any(found & TUMOUR_NAMES for found in covering.values())
    mapping: dict[int, int] = {}
    for number, found in sorted(covering.items()):
        if found == {"ignore"}:
            continue
        value = _kits_value(found, tumours_are_named=tumours_are_named)
        if value is None or (number == 0) != (value == 0):
            raise InputError(
                f"{source}: label {number} is {' and '.join(sorted(found))}; expected 0 background, and names such "
                "as kidney, tumour, cyst, or masses beside tumour"
            )
        mapping[number] = value
    if labels.KIDNEY not in mapping.values():
        raise InputError(f"{source}: labels {', '.join(map(str, names))}; expected one of them to be the kidney")
    return {0: labels.BACKGROUND, **mapping}


def to_kits(array: np.ndarray, *, path: Path, mapping: Mapping[int, int] | None = None) -> np.ndarray:
    """Checks the values of a label file and brings them to KiTS's.

    Args:
        array: of any shape and number type; at most some megabytes, for a table look-up takes eight times as much.
        path: the file, for the error message.
        mapping: KiTS value by the file's value; None where the file has KiTS's own.

    Returns:
        uint8 of the same shape with values 0, 1, 2, 3; the array itself where it is that already.

    Raises:
        InputError: values that are no whole numbers or are not in the mapping.
    """
    known = dict(mapping) if mapping else {value: value for value in range(labels.KITS23_CYST + 1)}
    lowest, highest = array.min(), array.max()
    whole = array.dtype.kind != "f" or np.array_equal(array, np.rint(array))
    if whole and lowest >= 0 and highest <= 255:
        array = array.astype(np.uint8, copy=False)
        # most files have all numbers up to their highest, and then that one says it all
        if set(range(int(highest) + 1)) <= set(known) or _values(array) <= set(known):
            if any(value != kits for value, kits in known.items()):
                table = np.zeros(256, np.uint8)
                table[list(known)] = list(known.values())
                array = table[array]
            return array
    if mapping is None:
        expected = "0 (background), 1 (kidney), 2 (tumour), or 3 (cyst, read as kidney)"
    else:
        expected = f"{', '.join(map(str, sorted(known)))} as dataset.json names them"
    raise InputError(f"{path}: label values {_some_values(array)}; expected whole numbers {expected}")


def _kits_value(names: set[str], *, tumours_are_named: bool) -> int | None:
    if names == {"background"}:
        return labels.BACKGROUND
    if not names <= TUMOUR_NAMES | CYST_NAMES | MASS_NAMES | KIDNEY_NAMES:
        return None
    if names & TUMOUR_NAMES:
        return labels.TUMOUR
    if names & CYST_NAMES:
        return labels.KITS23_CYST
    if names & MASS_NAMES:
        return labels.KITS23_CYST if tumours_are_named else None
    return labels.KIDNEY


def _values(array: np.ndarray) -> set[int]:
    """The values of a uint8 array."""
    seen = np.zeros(256, bool)
    seen[array] = True
    return set(np.flatnonzero(seen).tolist())


def _plain(name: str) -> str:
    words = " ".join(re.split(r"[\s_\-]+", str(name).strip().lower()))
    return _ORGAN.sub("", words)


def _some_values(array: np.ndarray, most: int = 6) -> str:
    values = [f"{value:g}" for value in np.unique(array)[: most + 1]]
    return ", ".join(values[:most]) + (", ..." if len(values) > most else "")
