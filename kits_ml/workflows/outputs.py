"""The files of one scan: their names, and how they appear, all of them or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml import files
from kits_ml.config import PredictSettings
from kits_ml.data import images, volumes
from kits_ml.errors import InputError

#: What the name of each output ends in.
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "output": volumes.NIFTI_SUFFIXES,
    "overlay": (".png", ".PNG"),
    "probabilities": volumes.NIFTI_SUFFIXES,
    "report": (".json",),
    "page": (".html",),
    "dicom_seg": (".dcm",),
}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files of one scan; None for what is not asked for. See `PredictSettings`."""

    output: Path
    overlay: Path | None = None
    probabilities: Path | None = None
    report: Path | None = None
    page: Path | None = None
    dicom_seg: Path | None = None

    def paths(self) -> dict[str, Path]:
        """Those that are asked for, by what they are."""
        return {name: path for name, path in vars(self).items() if path is not None}


def outputs_of(settings: PredictSettings) -> Outputs:
    """The files that the settings ask for.

    Raises:
        InputError: a name with another ending, or one for two of them.
    """
    given = {name: getattr(settings, name) for name in SUFFIXES if getattr(settings, name) is not None}
    for name, value in given.items():
        check_suffix(name, value)
    paths = {name: Path(value) for name, value in given.items()}
    if len(set(paths.values())) < len(paths):
        raise InputError(f"{', '.join(paths)}: found {', '.join(given.values())}, expected a name for each")
    return Outputs(**paths)


def check_suffix(name: str, value: str) -> None:
    """Raises an `InputError` where an output's name ends in something else than its kind's."""
    if not value.endswith(SUFFIXES[name]):
        raise InputError(f"{value}: expected a name for {name} that ends in {' or '.join(SUFFIXES[name])}")


def check_absent(outputs: Outputs) -> None:
    """Raises an `InputError` where an output is there already."""
    for path in outputs.paths().values():
        if path.exists():
            raise InputError(f"{path}: exists; expected a new name, or --overwrite true")


def check_spares(outputs: Outputs, scan: Path) -> None:
    """Raises an `InputError` where an output would take the place of one of the scan's own files."""
    own = {path.resolve() for path in images.image_files(scan)}
    for path in outputs.paths().values():
        if path.resolve() in own and not (scan.is_dir() and _is_earlier_output(path)):
            raise InputError(f"{path}: found a file of the scan {scan}, expected another name for the output")


def _is_earlier_output(path: Path) -> bool:
    """Whether a file beside the slices of a series is none of them: no DICOM file by its name, or a DICOM SEG."""
    if not path.name.endswith(SUFFIXES["dicom_seg"]):
        return True
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
    except pydicom.errors.InvalidDicomError:  # an old slice has no preamble
        return False
    return header.get("Modality") == "SEG"


@contextlib.contextmanager
def appearing_together(outputs: Outputs) -> Iterator[Outputs]:
    """Gives hidden names beside the outputs to write to; in the end all files take their places, or none does.

    After an error what was there before is there still, and folders that were made are gone again.

    Raises:
        InputError: the name of a folder; and those of the block, which name the outputs as they were asked for.
        OSError: as the block; of a full disk it always says where.
    """
    paths = outputs.paths()
    for path in paths.values():
        if path.is_dir():
            raise InputError(f"{path}: a folder, expected a name for a file")
    hidden = {name: path.with_name(f".{os.getpid()}.partial.{path.name}") for name, path in paths.items()}
    made: list[Path] = []
    try:
        for path in paths.values():
            _make_folder(path.parent, made)
        yield Outputs(**hidden)
        _place({paths[name]: hidden[name] for name in reversed(paths)})  # the label map last
        made.clear()
    except InputError as error:
        raise InputError(_as_asked_for(str(error), hidden, paths)) from error
    except OSError as error:
        if files.is_disk_full(error):
            error.filename = _as_asked_for(str(error.filename or outputs.output.parent), hidden, paths)
        raise
    finally:
        for path in hidden.values():
            path.unlink(missing_ok=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Makes a folder and those above it that are missing; notes each, the upper ones first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        made.append(one)


def _place(hidden: Mapping[Path, Path]) -> None:
    """Renames files to their names; where one cannot be, those that were replaced come back.

    Args:
        hidden: where each file is now, by where it goes.
    """
    kept: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, source in hidden.items():
            if path.exists():
                kept[path] = path.with_name(f".{os.getpid()}.before.{path.name}")
                files.link_or_copy(path, kept[path])  # the name is never without a whole file
            source.replace(path)
            placed.append(path)
    except BaseException:
        for path in placed:
            if path in kept:
                kept[path].replace(path)
            else:
                path.unlink(missing_ok=True)
        raise
    finally:
        for path in kept.values():
            path.unlink(missing_ok=True)


def _as_asked_for(message: str, hidden: Mapping[str, Path], paths: Mapping[str, Path]) -> str:
    for name, path in hidden.items():
        message = message.replace(str(path), str(paths[name]))
    return message
