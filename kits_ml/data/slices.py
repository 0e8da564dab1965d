"""The prepared store: PNG slices, an index, and what undoes the preparation.

    <prepared>/<digest>/
        images/case_00000/0000.png    grey values 0..255, one file a slice
        labels/case_00000/0000.png    grey values 0, 1, 2
        cases/case_00000.json         input digest, frame, slices, tumour volume and the fingerprints of the scan's
                                      slices: written last, so it says that the case is whole
        index.csv                     case, slice, pixels per class
        store.json                    settings and cases: written when all cases are there
        splits/<digest>.json          patients and parts, one file a split
        cache/                        the slices decoded, see `slice_cache`: written by the first training
        .locks/                       see `claims`

The folder's name is a digest of the settings and of every input file, so a store can't mix two preparations. A case
that another store of the same parent already holds is linked from there instead of being prepared again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import files
from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import claims, frames, patients, png, preprocessing, volumes
from kits_ml.errors import InputError
from kits_ml.labels import BACKGROUND, LABEL_NAMES, TUMOUR

#: Raised whenever the same inputs and settings would give other bytes.
FORMAT_VERSION = 3

PIXEL_COLUMNS = tuple(f"{name}_pixels" for name in LABEL_NAMES.values())
INDEX_COLUMNS = ["case", "slice", *PIXEL_COLUMNS]
INDEX_CSV = "index.csv"
STORE_JSON = "store.json"

#: A case's record while it is not yet in `cases/`.
_RECORD_JSON = "record.json"


def store_digest(case_digests: Mapping[str, str], settings: PreprocessingSettings) -> str:
    """The store's name: 16 hexadecimal digits that change with any input file and any setting."""
    identity = {"format": FORMAT_VERSION, "settings": settings.to_dict(), "cases": dict(sorted(case_digests.items()))}
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


def prepare_case(case: case_files.Case, *, digest: str, store: Path, settings: PreprocessingSettings) -> str:
    """Prepares one case into a store, unless it is there already. Safe to kill; a second process waits for the first.

    Args:
        case: the case to read.
        digest: of the case's files.
        store: the store's folder.
        settings: what to do.

    Returns:
        What the user should be told of the case; empty if nothing.

    Raises:
        InputError: the case cannot be used; nothing of it stays in the store.
        OSError: a full disk, in the store's name, is not the case's fault: what goes on after a bad case stops here.
    """
    with claims.claim(store, case.name) as scratch:
        if _prepared_from(_record_path(store, case.name)):
            return ""
        image, label_map = case_files.load_case(case)
        try:
            frame = frames.find_frame(image.array, settings, spacing_mm=image.spacing_mm)
        except InputError as error:
            raise InputError(f"{image.path}: {error}") from error
        first = 0
        for block in preprocessing.prepare_image(image.array, frame, settings):
            _write_pngs(scratch / "images", block, first)
            first += len(block)
        labels = preprocessing.prepare_labels(label_map.array, frame)
        _write_pngs(scratch / "labels", labels, 0)
        record = {
            "case": case.name,
            "input_digest": digest,
            "settings": settings.to_dict(),
            "format": FORMAT_VERSION,
            "frame": frame.to_dict(),
            "spacing_mm": list(image.spacing_mm),
            "tumour_ml": volumes.volume_ml(label_map, TUMOUR),
            "slice_digests": patients.slice_digests(image.array),
            "pixels": pixels_per_class(labels),
        }
        files.write_json(scratch / _RECORD_JSON, record)
        _publish(scratch, store, case.name)
    frame_note = f"{image.path}: {note}" if (note := frame.note(settings)) else ""
    return "; ".join(filter(None, (image.note, label_map.note, frame_note)))


def link_case(name: str, *, digest: str, store: Path, settings: PreprocessingSettings) -> bool:
    """Takes a case over from a sibling store that prepared the same files in the same way.

    Returns:
        Whether the case is now in the store.

    Raises:
        OSError: a full disk, in the store's name.
    """
    if _prepared_from(_record_path(store, name)):
        return True
    for sibling in sorted(store.parent.glob("*/cases")):
        record_path = sibling / f"{name}.json"
        if sibling.parent == store or _prepared_from(record_path) != (digest, settings.to_dict(), FORMAT_VERSION):
            continue
        _take_over(name, sibling.parent, store)
        return True
    return False


def _prepared_from(record_path: Path) -> tuple[Any, ...] | None:
    """Input digest, settings and format of a case's record; None where there is none that can be read."""
    try:
        record = json.loads(record_path.read_text())
        return record["input_digest"], record["settings"], record["format"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _take_over(name: str, sibling: Path, store: Path) -> None:
    """Links a case from another store, unless another process put it here meanwhile."""
    with claims.claim(store, name) as scratch:
        if _prepared_from(_record_path(store, name)):
            return
        for kind in ("images", "labels"):
            (scratch / kind).mkdir()
            for path in (sibling / kind / name).iterdir():
                _link_or_copy(path, scratch / kind / path.name)
        _link_or_copy(_record_path(sibling, name), scratch / _RECORD_JSON)
        _publish(scratch, store, name)


def finish_store(store: Path, names: Sequence[str], settings: PreprocessingSettings) -> PreparedStore:
    """Writes the index and `store.json` once all cases are there."""
    records = [json.loads(_record_path(store, name).read_text()) for name in sorted(names)]
    rows = [
        {"case": record["case"], "slice": number, **dict(zip(PIXEL_COLUMNS, pixels, strict=True))}
        for record in records
        for number, pixels in enumerate(record["pixels"])
    ]
    digests = {record["case"]: record["input_digest"] for record in records}
    content = {"digest": store.name, "format": FORMAT_VERSION, "settings": settings.to_dict(), "cases": digests}
    with claims.claim(store, STORE_JSON) as scratch:
        files.write_csv(scratch / INDEX_CSV, rows, INDEX_COLUMNS)
        files.write_json(scratch / STORE_JSON, content)
        for name in (INDEX_CSV, STORE_JSON):
            (scratch / name).replace(store / name)
        return PreparedStore.open(store)


@dataclass(frozen=True, kw_only=True)
class PreparedStore:
    """A finished store.

    Attributes:
        folder: where it is; its name is the digest of inputs and settings.
        settings: the preparation.
        case_digests: digest of the input files, by case name.
        index: a row a slice: `case`, `slice`, pixels per class.
    """

    folder: Path
    settings: PreprocessingSettings
    case_digests: Mapping[str, str]
    index: tuple[Mapping[str, Any], ...]

    @classmethod
    def open(cls, folder: str | Path) -> PreparedStore:
        """Opens a finished store.

        Raises:
            InputError: the folder is no store, one that was not finished or one of another version, or its index
                is of other cases.
        """
        folder = Path(folder)
        try:
            content = _read_content(folder / STORE_JSON)
            index = _read_index(folder / INDEX_CSV)
            if differing := sorted({row["case"] for row in index} ^ set(content["cases"])):
                raise ValueError(f"{', '.join(differing[:5])}: found in one of {STORE_JSON} and {INDEX_CSV} only")
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{folder}: no finished prepared store ({error}); run `kits-ml prepare`") from error
        settings = PreprocessingSettings.from_mapping(content["settings"], source=str(folder / STORE_JSON))
        return cls(folder=folder, settings=settings, case_digests=content["cases"], index=index)

    @property
    def digest(self) -> str:
        """The digest of inputs and settings."""
        return self.folder.name

    def tumour_volumes_ml(self) -> dict[str, float]:
        """By case name, the tumour's volume on the scan's own grid, millilitres; 0 where there is none."""
        return {name: self._record(name)["tumour_ml"] for name in self.case_digests}

    def slice_digests(self) -> dict[str, list[str]]:
        """By case name, the fingerprints of the scan's slices, see `patients.slice_digests`."""
        return {name: self._record(name)["slice_digests"] for name in self.case_digests}

    def _record(self, name: str) -> dict[str, Any]:
        path = _record_path(self.folder, name)
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no record of a case ({error}); `kits-ml prepare` writes it anew") from error

    def positions_of(self, names: Sequence[str], *, margin_mm: float | None = None) -> list[int]:
        """Where the slices of some cases stand in the index, in its order.

        Args:
            names: of cases.
            margin_mm: leave out slices that are further than this from the nearest one that shows kidney or tumour;
                so a case that shows neither has no slices left. None: all slices. For training only.

        Raises:
            InputError: a name that is no case of the store. A case is the unit: there is no asking for slices.
        """
        wanted = set(names)
        if unknown := sorted(wanted - set(self.case_digests)):
            raise InputError(f"{self.folder}: {', '.join(unknown[:5])} not in the store; expected names of its cases")
        positions = [number for number, row in enumerate(self.index) if row["case"] in wanted]
        if margin_mm is None:
            return positions
        shown: dict[str, list[int]] = {name: [] for name in wanted}
        for row in (self.index[number] for number in positions):
            if shown_class(row) != BACKGROUND:
                shown[row["case"]].append(row["slice"])
        reach = {name: margin_mm / self._record(name)["spacing_mm"][0] + 1e-6 for name in wanted}  # slices

        def is_near(row: Mapping[str, Any]) -> bool:
            return any(abs(row["slice"] - number) <= reach[row["case"]] for number in shown[row["case"]])

        return [number for number in positions if is_near(self.index[number])]

    def read_slice(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """One slice's grey values and labels, each `(image_size, image_size)` uint8.

        Raises:
            InputError: a file is missing, damaged or no 8-bit grey PNG of this size.
        """
        name = f"{row['slice']:04d}.png"
        grey, labels = (
            png.read(self.folder / kind / row["case"] / name, size=self.settings.image_size)
            for kind in ("images", "labels")
        )
        return grey, labels


def shown_class(row: Mapping[str, Any]) -> int:
    """The label that a slice of the index counts for: tumour where it shows any, else kidney where it shows any."""
    shown = [label for label, column in zip(LABEL_NAMES, PIXEL_COLUMNS, strict=True) if row[column]]
    return max(shown, default=BACKGROUND)


def _record_path(store: Path, name: str) -> Path:
    return store / "cases" / f"{name}.json"


def _read_content(path: Path) -> dict[str, Any]:
    """What `store.json` says; a `ValueError` where it is none of this version."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("settings", "cases")):
        raise ValueError(f"{path.name}: expected an object with settings and cases")
    if content.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path.name}: found format {content.get('format')}, expected {FORMAT_VERSION}")
    return content


def _read_index(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The rows of `index.csv`; a `ValueError` where it is not as it was written."""
    with path.open(newline="") as stream:
        lines = list(csv.reader(stream))
    columns = lines[0] if lines else []
    if columns != INDEX_COLUMNS:
        raise ValueError(f"{path.name}: found columns {', '.join(columns)}; expected {', '.join(INDEX_COLUMNS)}")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(INDEX_COLUMNS):
            raise ValueError(f"{path.name}, line {number}: found {len(line)} cells, expected {len(INDEX_COLUMNS)}")
    counts = columns[1:]
    return tuple({"case": case, **dict(zip(counts, map(int, numbers), strict=True))} for case, *numbers in lines[1:])


def _publish(scratch: Path, store: Path, name: str) -> None:
    """Moves a claimed case into place, its record last; folders that lie there without a record are not whole."""
    for kind in ("images", "labels"):
        target = store / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        (scratch / kind).rename(target)
    record_path = _record_path(store, name)
    record_path.parent.mkdir(exist_ok=True)
    (scratch / _RECORD_JSON).replace(record_path)


def _write_pngs(folder: Path, slices: np.ndarray, first: int) -> None:
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(slices, start=first):
        (folder / f"{number:04d}.png").write_bytes(png.encode(pixels))


def pixels_per_class(labels: np.ndarray) -> list[list[int]]:
    """Counts of the pixels of each class in each slice of `(slices, rows, columns)` labels.

    Counted class by class, for `bincount` turns each pixel into eight bytes first.
    """
    counts = [np.count_nonzero(labels == label, axis=(1, 2)) for label in LABEL_NAMES]
    return np.transpose(counts).tolist()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
