"""Phantom cases on disk: each appears whole or not at all, and a rerun makes only what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import psutil

from kits_ml.config import PhantomSettings
from kits_ml.data import volumes
from kits_ml.data.phantom.rendering import generate_case
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workers import run_cases

IMAGE_NAME = "imaging.nii.gz"
LABEL_MAP_NAME = "segmentation.nii.gz"
RECORD_NAME = "phantom.json"

_PARTIAL_SUFFIX = ".partial"


def write_cases(settings: PhantomSettings) -> list[Path]:
    """Writes phantom cases in the KiTS layout.

    A case's content depends on seed, index and distribution alone. Cases that are there are kept, unless
    `settings.overwrite`; what an interrupted run left half done is removed.

    Args:
        settings: where, how many, which.

    Returns:
        The folders of all cases, in order, those that were there included.

    Raises:
        InputError: the folder cannot be used, or holds cases that other settings (or no phantom) made.
    """
    output = Path(settings.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a folder for cases ({error.strerror})") from error
    _remove_leftovers(output)
    folders = [output / f"case_{index:05d}" for index in range(settings.num_cases)]
    missing = [
        index for index, folder in enumerate(folders) if settings.overwrite or not _is_there(folder, index, settings)
    ]
    made_with = {"output": settings.output, "seed": settings.seed, "distribution": settings.distribution}
    tasks = {folders[index].name: {"index": index, **made_with} for index in missing}
    _, failures = run_cases(write_case, tasks, num_workers=settings.num_workers, description="phantom")
    if failures:
        raise CasesFailedError(failures, len(tasks))
    return folders


def write_case(index: int, *, output: str, seed: int, distribution: str) -> None:
    """Writes one case, replacing what is there.

    Args:
        index: number of the case.
        output: folder of the cases.
        seed, distribution: as for `generate_case`.
    """
    folder = Path(output) / f"case_{index:05d}"
    partial = folder.with_name(f".{folder.name}.{os.getpid()}{_PARTIAL_SUFFIX}")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced{_PARTIAL_SUFFIX}")
    _remove(partial)
    try:
        partial.mkdir(parents=True)
        case = generate_case(seed=seed, index=index, distribution=distribution)
        geometry = volumes.kits_geometry(case.image.shape, case.spacing_mm)
        volumes.write_image(partial / IMAGE_NAME, case.image, geometry)
        volumes.write_label_map(partial / LABEL_MAP_NAME, case.label_map, geometry)
        (partial / RECORD_NAME).write_text(json.dumps(case.description, indent=1) + "\n", encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            folder.replace(replaced)
        partial.replace(folder)
    finally:
        _remove(partial)
        _remove(replaced)


def _is_there(folder: Path, index: int, settings: PhantomSettings) -> bool:
    """Whether the case is complete and the one that is wanted."""
    if not folder.exists():
        return False
    record = folder / RECORD_NAME
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        made_with = {name: found.get(name) for name in ("seed", "index", "distribution")}
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"{folder}: found a case without a readable {RECORD_NAME}, expected one that this command made; "
            "give another output, or overwrite"
        ) from None
    wanted = {"seed": settings.seed, "index": index, "distribution": settings.distribution}
    if made_with != wanted:
        raise InputError(f"{folder}: made with {made_with}, expected {wanted}; give another output, or overwrite")
    return (folder / IMAGE_NAME).exists() and (folder / LABEL_MAP_NAME).exists()


def _remove_leftovers(output: Path) -> None:
    """Removes what runs that are no longer alive left behind."""
    for path in output.glob(f".case_*{_PARTIAL_SUFFIX}"):
        owner = path.name.split(".")[2]  # .case_00000.<process>.partial
        if not owner.isdigit() or int(owner) == os.getpid() or not psutil.pid_exists(int(owner)):
            _remove(path)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
