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

The folder's name is a digest of the settings and of every input file, so a store can't mix two preparations. A case
that another store of the same parent already holds is linked from there instead of being prepared again.
"""

from __future__ import annotations

import contextlib
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
from kits_ml.data import frames, patients, png, preprocessing, volumes
from kits_ml.errors import InputError
from kits_ml.labels import BACKGROUND, LABEL_NAMES, TUMOUR

#: Raised whenever the same inputs and settings would give other bytes.
FORMAT_VERSION = 3

PIXEL_COLUMNS = tuple(f"{name}_pixels" for name in LABEL_NAMES.values())
INDEX_COLUMNS = ["case", "slice", *PIXEL_COLUMNS]


def store_digest(case_digests: Mapping[str, str], settings: PreprocessingSettings) -> str:
    """The store's name: 16 hexadecimal digits that change with any input file and any setting."""
    identity = {"format": FORMAT_VERSION, "settings": settings.to_dict(), "cases": dict(sorted(case_digests.items()))}
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


def prepare_case(case: case_files.Case, *, digest: str, store: Path, settings: PreprocessingSettings) -> str:
    """Prepares one case into a store, unless it is there already. Safe to kill, and to run twice at once.

    Args:
        case: the case to read.
        digest: of the case's files.
        store: the store's folder.
        settings: what to do.

    Returns:
        What the user should be told of the case; empty if nothing.

    Raises:
        InputError: the case cannot be used; nothing of it stays in the store.
    """
    record_path = _record_path(store, case.name)
    if record_path.exists():
        return ""
    image, label_map = case_files.load_case(case)
    try:
        frame = frames.find_frame(image.array, settings, spacing_mm=image.spacing_mm)
    except InputError as error:
        raise InputError(f"{image.path}: {error}") from error
    with _scratch(store, case.name) as scratch:
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
        _publish(scratch, store, case.name)
    files.write_json(record_path, record)
    frame_note = f"{image.path}: {note}" if (note := frame.note(settings)) else ""
    return "; ".join(filter(None, (image.note, label_map.note, frame_note)))


def link_case(name: str, *, digest: str, store: Path, settings: PreprocessingSettings) -> bool:
    """Takes a case over from a sibling store that prepared the same files in the same way.

    Returns:
        Whether the case is now in the store.
    """
    if _record_path(store, name).exists():
        return True
    for sibling in sorted(store.parent.glob("*/cases")):
        record_path = sibling / f"{name}.json"
        if sibling.parent == store or not record_path.exists():
            continue
        record = json.loads(record_path.read_text())
        wanted = (digest, settings.to_dict(), FORMAT_VERSION)
        if (record["input_digest"], record["settings"], record["format"]) != wanted:
            continue
        with _scratch(store, name) as scratch:
            for kind in ("images", "labels"):
                shutil.copytree(sibling.parent / kind / name, scratch / kind, copy_function=_link_or_copy)
            _publish(scratch, store, name)
        files.write_json(_record_path(store, name), record)
        return True
    return False


def finish_store(store: Path, names: Sequence[str], settings: PreprocessingSettings) -> PreparedStore:
    """Writes the index and `store.json` once all cases are there."""
    records = [json.loads(_record_path(store, name).read_text()) for name in sorted(names)]
    rows = [
        {"case": record["case"], "slice": number, **dict(zip(PIXEL_COLUMNS, pixels, strict=True))}
        for record in records
        for number, pixels in enumerate(record["pixels"])
    ]
    files.write_csv(store / "index.csv", rows, INDEX_COLUMNS)
    digests = {record["case"]: record["input_digest"] for record in records}
    files.write_json(
        store / "store.json",
        {"digest": store.name, "format": FORMAT_VERSION, "settings": settings.to_dict(), "cases": digests},
    )
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
            InputError: the folder is no store, or one that was not finished.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / "store.json").read_text())
            with (folder / "index.csv").open(newline="") as stream:
                index = tuple(
                    {name: value if name == "case" else int(value) for name, value in row.items()}
                    for row in csv.DictReader(stream)
                )
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: no finished prepared store ({error}); run `kits-ml prepare`") from error
        settings = PreprocessingSettings.from_mapping(content["settings"], source=str(folder / "store.json"))
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
        return json.loads(_record_path(self.folder, name).read_text())

    def rows_of(self, names: Sequence[str], *, margin_mm: float | None = None) -> list[Mapping[str, Any]]:
        """The index rows of some cases, in the store's order; see `positions_of`."""
        return [self.index[number] for number in self.positions_of(names, margin_mm=margin_mm)]

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

    def slices_by_class(self, names: Sequence[str] | None = None) -> dict[str, list[Mapping[str, Any]]]:
        """The index rows of some cases (all without `names`) by what they show, see `shown_class`.

        Returns:
            By label name, `background`, `kidney` and `tumour`; each slice stands in one of the lists.
        """
        found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in LABEL_NAMES.values()}
        for row in self.rows_of(list(self.case_digests) if names is None else names):
            found[LABEL_NAMES[shown_class(row)]].append(row)
        return found

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


@contextlib.contextmanager
def _scratch(store: Path, name: str):
    """A private folder inside the store that goes away with the process's work."""
    scratch = store / f".{name}.{os.getpid()}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, store: Path, name: str) -> None:
    """Moves a case's finished folders into place. Another process's, or a killed one's, may be there: equal bytes."""
    for kind in ("images", "labels"):
        target = store / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            (scratch / kind).rename(target)
        except OSError:
            if not target.is_dir():
                raise


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


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
