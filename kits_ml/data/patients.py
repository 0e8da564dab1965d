"""Which cases are one patient: said by a file, known of KiTS, or seen in the voxels.

A split divides patients, so whatever is found here can never be on two sides of it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kits_ml.data.blocks import contiguous_blocks
from kits_ml.errors import InputError

log = logging.getLogger(__name__)

#: Cases of KiTS23 that are copies of others.
KITS_COPIES: Mapping[str, str] = {"case_00400": "case_00185"}

#: A slice with nothing denser than this is air and tables, which can be alike in two patients.
BLANK_BELOW_HU = -200


def slice_digests(image: np.ndarray) -> list[str]:
    """Fingerprints of the axial slices, by which a scan is known again under another name.

    Two scans that share a slice, voxel by voxel, are scans of one patient: a copy, a repacked or reoriented file,
    a part of a longer series. A resampled or otherwise recomputed copy is not recognised.

    Args:
        image: `(slices, rows, columns)` in HU, any number type; whole and fractional HU of one scan are the same.

    Returns:
        Sorted, hexadecimal, without repeats; empty where every slice is blank (one value, or nothing above -200 HU).
    """
    limits = np.iinfo(np.int16)
    found = set()
    for one in (one for block in contiguous_blocks(image) for one in block):
        highest = one.max()
        if highest <= BLANK_BELOW_HU or one.min() == highest:
            continue
        if one.dtype != np.int16:
            one = np.clip(np.rint(one), limits.min, limits.max).astype(np.int16)
        digest = hashlib.blake2b(str(one.shape).encode(), digest_size=8)
        digest.update(one)
        found.add(digest.hexdigest())
    return sorted(found)


def known_again(image: np.ndarray, seen: Collection[str]) -> bool:
    """Whether a scan shares a slice with scans that were seen.

    Args:
        image: `(slices, rows, columns)` in HU.
        seen: `slice_digests` of those scans, or some of each.
    """
    return not set(seen).isdisjoint(slice_digests(image))


def find_patients(digests: Mapping[str, Iterable[str]], *, groups: Mapping[str, str] | None = None) -> dict[str, str]:
    """Says which patient each case is of.

    Cases are one patient where the groups say so, where they share a slice's fingerprint, where KiTS is known to
    hold a case twice, and through any chain of these.

    Args:
        digests: `slice_digests` by case name; every case is here, with an empty list if nothing is known of it.
        groups: group by case name; a case that is not in it is a patient of its own. Other cases' are ignored.

    Returns:
        By case name, the patient: the first name, in order, of the patient's cases.
    """
    leader = {case: case for case in digests}

    def find(case: str) -> str:
        while leader[case] != case:
            case = leader[case]
        return case

    first_with: dict[tuple[str, str], str] = {}
    for case in sorted(digests):
        marks = [("slice", digest) for digest in digests[case]]
        marks.append(("copy", KITS_COPIES.get(case, case)))
        if groups and case in groups:
            marks.append(("group", groups[case]))
        for mark in marks:
            one, other = find(case), find(first_with.setdefault(mark, case))
            leader[max(one, other)] = min(one, other)
    return {case: find(case) for case in digests}


def cases_by_patient(patients: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The cases of each patient, sorted."""
    members: dict[str, list[str]] = {}
    for case, patient in sorted(patients.items()):
        members.setdefault(patient, []).append(case)
    return {patient: tuple(cases) for patient, cases in members.items()}


def patients_of(digests: Mapping[str, Iterable[str]], groups_file: str | None) -> dict[str, str]:
    """Patient by case: by the groups of a file and by what the scans share, and says what it found.

    Raises:
        InputError: a groups file that cannot be used.
    """
    groups = read_groups(groups_file) if groups_file else {}
    found = find_patients(digests, groups=groups)
    for names in cases_by_patient(found).values():
        if len({groups.get(name, name) for name in names}) > 1:
            log.info("%s hold the same scan: they count as one patient", ", ".join(names))
    return found


def read_groups(path: str | Path) -> dict[str, str]:
    """Reads a CSV with the columns `case` and `group`; more columns may be there.

    Returns:
        Group by case. A case with an empty group is left out, and so is a patient of its own.

    Raises:
        InputError: unreadable, without these columns, or with a case in two groups.
    """
    groups: dict[str, str] = {}
    for row in read_rows(path, ("case", "group")):
        case, group = row["case"], row["group"]
        if group and groups.setdefault(case, group) != group:
            raise InputError(f"{path}: {case} is in the groups {groups[case]} and {group}; expected one group a case")
    return groups


def read_rows(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads some columns of a CSV file; cells without the space around them, rows without a first cell left out.

    Raises:
        InputError: no such file, not text, no such columns.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            missing = [name for name in columns if name not in header]
            if missing:
                raise InputError(
                    f"{path}: found columns {', '.join(header) or 'none'}; expected {', '.join(columns)}"
                )
            rows = [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected CSV with {', '.join(columns)}") from error
    return [row for row in rows if row[columns[0]]]
