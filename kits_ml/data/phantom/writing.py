"""Phantom cases on disk: each appears whole or not at all, and a rerun makes only what is missing."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from kits_ml.config import PhantomSettings
from kits_ml.data import claims, volumes
from kits_ml.data.phantom.rendering import generate_case
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workers import run_cases

IMAGE_NAME = "imaging.nii.gz"
LABEL_MAP_NAME = "segmentation.nii.gz"
RECORD_NAME = "phantom.json"


def write_cases(settings: PhantomSettings) -> list[Path]:
    """Writes phantom cases in the KiTS layout.

    A case's content depends on seed, index and distribution alone. Cases that are there are kept, unless
    `settings.overwrite`; what an interrupted run left half done is removed. Several processes may write into one
    folder, also in containers of their own.

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
    claims.remove_leftovers(output, "case_*")
    folders = [_folder(index, settings) for index in range(settings.num_cases)]
    missing = [index for index in range(settings.num_cases) if settings.overwrite or not _is_there(index, settings)]
    tasks = {folders[index].name: {"index": index, "settings": settings} for index in missing}
    _, failures = run_cases(write_case, tasks, num_workers=settings.num_workers, description="phantom")
    if failures:
        raise CasesFailedError(failures, len(tasks))
    return folders


def write_case(index: int, settings: PhantomSettings) -> None:
    """Writes one case, unless another process did meanwhile; with `settings.overwrite` it replaces what is there.

    Args:
        index: number of the case.
        settings: where, and which.

    Raises:
        InputError: other settings (or no phantom) made what is there.
        OSError: of a full disk it names the folder of the cases.
    """
    folder = _folder(index, settings)
    with claims.claim(folder.parent, folder.name) as scratch:
        if not settings.overwrite and _is_there(index, settings):
            return
        made = scratch / "made"
        made.mkdir()
        case = generate_case(seed=settings.seed, index=index, distribution=settings.distribution)
        geometry = volumes.kits_geometry(case.image.shape, case.spacing_mm)
        volumes.write_image(made / IMAGE_NAME, case.image, geometry)
        volumes.write_label_map(made / LABEL_MAP_NAME, case.label_map, geometry)
        (made / RECORD_NAME).write_text(json.dumps(case.description, indent=1) + "\n", encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            folder.replace(scratch / "replaced")
        made.replace(folder)


def _folder(index: int, settings: PhantomSettings) -> Path:
    return Path(settings.output) / f"case_{index:05d}"


def _is_there(index: int, settings: PhantomSettings) -> bool:
    """Whether the case is complete and the one that is wanted."""
    folder = _folder(index, settings)
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
