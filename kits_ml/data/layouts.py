"""Writing cases in a layout: linked where the bytes can stay, else written anew; never half a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isal import igzip

from kits_ml import files
from kits_ml.data import cases as case_files
from kits_ml.data import nnunet, patients, volumes
from kits_ml.labels import TUMOUR


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a data set lies in its folder.

    Attributes:
        target_files: from the folder, a case's name and `held_out`, the paths of its image and its label map.
        keep_cysts: whether label maps may hold 3 for cysts; else they become kidney.
        holds_out: whether test cases lie apart from the others.
    """

    target_files: Callable[..., tuple[Path, Path]]
    keep_cysts: bool
    holds_out: bool


def _kits_files(folder: Path, name: str, *, held_out: bool) -> tuple[Path, Path]:
    return folder / name / case_files.IMAGE_NAME, folder / name / case_files.LABELS_NAME


LAYOUTS: Mapping[str, Layout] = {
    "nnunet": Layout(target_files=nnunet.target_files, keep_cysts=False, holds_out=True),
    "kits19": Layout(target_files=_kits_files, keep_cysts=False, holds_out=False),
    "kits23": Layout(target_files=_kits_files, keep_cysts=True, holds_out=False),
}


def survey_case(case: case_files.Case, *, digest: str, record_path: Path) -> dict[str, Any]:
    """Reads a case once, and finds what a split wants to know; kept in a file for the next time.

    Args:
        case: the case to read.
        digest: of the case's files.
        record_path: where the findings are kept.

    Returns:
        `tumour_ml` (millilitres), `slice_digests` (see `patients.slice_digests`) and the `digest`.

    Raises:
        InputError: as `cases.load_case`.
    """
    known = _read_record(record_path)
    if known is not None and known["digest"] == digest:
        return known
    image, label_map = case_files.load_case(case)
    record = {
        "digest": digest,
        "tumour_ml": volumes.volume_ml(label_map, TUMOUR),
        "slice_digests": patients.slice_digests(image.array),
    }
    files.write_json(record_path, record)
    return record


def _read_record(path: Path) -> dict[str, Any] | None:
    """What was found before; None where there is nothing, or nothing that can be read."""
    try:
        record = json.loads(path.read_text())
        return {
            "digest": record["digest"],
            "tumour_ml": float(record["tumour_ml"]),
            "slice_digests": list(record["slice_digests"]),
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_case(case: case_files.Case, *, folder: Path, layout: str, held_out: bool) -> str:
    """Puts a case into a folder; files that are there stay.

    A file is linked (copied where the file system has no links) if its bytes can stay as they are. Unpacked files
    are packed. A label map is written anew, on the same grid, if its numbers mean something else in the layout.

    Args:
        case: the case to write.
        folder: of the data set.
        layout: a name from `LAYOUTS`.
        held_out: whether the case is for testing.

    Returns:
        What the user should be told of the case; empty if nothing.

    Raises:
        InputError: a file that cannot be read.
    """
    image_path, labels_path = LAYOUTS[layout].target_files(folder, case.name, held_out=held_out)
    note = ""
    if not image_path.exists() and not _take_over(case.image_path, image_path):
        # DICOM slices: written with the axes of the label map, which every reader then finds on the same voxels
        image, _ = case_files.load_case(case)
        volumes.write_image(image_path, image.array, volumes.read_geometry(case.labels_path))
    if not labels_path.exists():
        keep_cysts = LAYOUTS[layout].keep_cysts
        label_map = volumes.read_label_map(case.labels_path, mapping=case.label_values, keep_cysts=keep_cysts)
        note = label_map.note
        if note or case.renumbers or not _take_over(case.labels_path, labels_path):
            volumes.write_label_map(labels_path, label_map.array, label_map.geometry)
    return note


def _take_over(source: Path, target: Path) -> bool:
    """Gives a NIfTI file another name, packed, if that can be done without reading its voxels."""
    if source.name.endswith(".nii.gz"):
        files.link_or_copy(source, target)
    elif source.name.endswith(".nii"):
        files.write_bytes(target, igzip.compress(source.read_bytes(), 2, mtime=0))
    else:
        return False
    return True
