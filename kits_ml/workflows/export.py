"""Cases into another layout, with a split by patient beside them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from kits_ml import files
from kits_ml.config import ExportSettings, SplitSettings
from kits_ml.data import cases as case_files
from kits_ml.data import layouts, nnunet, patients, split_files, splits
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workers import run_cases

log = logging.getLogger(__name__)

#: What was exported: by it an export is gone on with, and another one is not mixed in.
MANIFEST = "export.json"
#: What was found out about the cases on the way, and the lock of whoever writes.
RECORDS = ".export"
SPLIT = "split.json"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        folder: of the data set.
        split: which case is for what; of the fold that was asked for.
        folds: the split of every fold; only this one if there are no folds.
    """

    folder: Path
    split: splits.Split
    folds: list[splits.Split]


def export(settings: ExportSettings) -> Exported:
    """Writes the cases of a folder in another layout, with `split.json` and nnU-Net's `splits_final.json`.

    In nnU-Net's layout, test cases go to `imagesTs` and `labelsTs`. Cases that fixed lists do not name are left out.
    An export that was broken off goes on where it was.

    Raises:
        InputError: no cases, a bad split, or an output folder that holds something else or that another export
            writes into.
        CasesFailedError: some cases are bad and `skip_failed_cases` is off; nothing of the data set is written.
    """
    output = Path(settings.output)
    _check_output(output, settings)
    cases = {case.name: case for case in case_files.find_cases(settings.data)}
    with _alone(output):
        return _export(cases, output, settings)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """One export at a time writes into a folder; the system lets go of a killed one's lock."""
    (output / RECORDS).mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(output / RECORDS / "lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise InputError(f"{output}: another export writes into it; expected a folder of its own") from error
    with held:
        yield


def _export(cases: dict[str, case_files.Case], output: Path, settings: ExportSettings) -> Exported:
    surveyed, failures = _survey(cases, output, settings.num_workers)
    if failures and (not settings.skip_failed_cases or len(failures) == len(cases)):
        raise CasesFailedError(failures, len(cases))
    folds = splits.all_folds(
        {name: found["tumour_ml"] for name, found in surveyed.items()},
        settings.select(SplitSettings),
        patients=patients.patients_of(
            {name: found["slice_digests"] for name, found in surveyed.items()}, settings.groups_file
        ),
        held_out=[name for name in surveyed if cases[name].held_out],
        unusable=failures,
    )
    split = _chosen(folds, settings)
    record = splits.describe(split, settings.select(SplitSettings))
    chosen = sorted((*split.train, *split.validation, *split.test))
    digests = {name: surveyed[name]["digest"] for name in chosen}
    _begin(output, {"layout": settings.layout, "cases": digests, "split": record}, overwrite=settings.overwrite)
    _write_cases({name: cases[name] for name in chosen}, split, settings)
    _write_descriptions(output, split, folds, record, settings.layout)
    log.info("exported %d of %d cases to %s in the layout %s", len(chosen), len(cases), output, settings.layout)
    return Exported(folder=output, split=split, folds=folds)


def _chosen(folds: list[splits.Split], settings: ExportSettings) -> splits.Split:
    """The fold that is asked for; all folds go with one set of cases, so each must have the same."""
    if settings.fold >= len(folds):
        raise InputError(f"fold: found {settings.fold}, expected 0 to {len(folds) - 1}")
    split = folds[settings.fold]
    if len({one.test for one in folds}) > 1:
        raise InputError(f"{settings.split_file}: its folds have different test cases; expected the same in each")
    for number, one in enumerate(folds):
        differing = sorted({*split.train, *split.validation} ^ {*one.train, *one.validation})
        if differing:
            raise InputError(
                f"{settings.split_file}: {', '.join(differing[:5])} in only one of the folds {settings.fold} and "
                f"{number}; expected the same cases in each"
            )
    return split


def _check_output(output: Path, settings: ExportSettings) -> None:
    source, target = Path(settings.data).resolve(), output.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InputError(
            f"{output}: lies in the data {settings.data} or around them; expected a folder apart from them"
        )
    if settings.layout == "nnunet" and not nnunet.FOLDER_NAME.fullmatch(target.name):
        raise InputError(f"{output}: nnU-Net would not find it; expected a name such as Dataset219_KiTS19")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: found a file, expected a folder")
    if output.is_dir() and not (output / MANIFEST).exists():
        foreign = sorted(path.name for path in output.iterdir() if path.name != RECORDS and not _is_left(path))
        if foreign:
            raise InputError(
                f"{output}: holds {', '.join(foreign[:3])}, not written by an export; expected an empty folder"
            )


def _is_left(path: Path) -> bool:
    """Whether a killed export left the file on its way; see `files.open_to_write`."""
    return path.name.startswith(".") and path.name.endswith(".partial") and path.is_file()


def _survey(
    cases: dict[str, case_files.Case], output: Path, num_workers: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    digests, _ = run_cases(
        case_files.Case.digest,
        {name: {"self": case} for name, case in cases.items()},
        num_workers=1,
        description="fingerprint",
    )
    tasks = {
        name: {"case": case, "digest": digests[name], "record_path": output / RECORDS / f"{name}.json"}
        for name, case in cases.items()
    }
    return run_cases(layouts.survey_case, tasks, num_workers=num_workers, description="read")


def _begin(output: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
    """Notes what is exported, before the first file of it; removes another export's files if that is wished."""
    for left in filter(_is_left, list(output.rglob(".*.partial"))):
        left.unlink(missing_ok=True)
    layout = layouts.LAYOUTS[identity["layout"]]
    test = set(identity["split"]["test"])
    names = [
        str(path.relative_to(output))
        for name in identity["cases"]
        for path in layout.target_files(output, name, held_out=layout.holds_out and name in test)
    ]
    manifest = {**identity, "files": [*names, nnunet.DESCRIPTION, nnunet.SPLITS, SPLIT]}
    path = output / MANIFEST
    if path.exists():
        found = _read_manifest(path)
        if found == manifest:
            return
        if not overwrite:
            differing = ", ".join(key for key in identity if found.get(key) != identity[key])
            raise InputError(
                f"{output}: holds another export ({differing}); expected a new folder, or --overwrite true"
            )
        for name in found["files"]:
            target = output / name
            if ".." in Path(name).parts or output not in target.parents:
                raise InputError(f"{path}: names {name}, expected files of its own folder")
            target.unlink(missing_ok=True)
            if target.parent != output and target.parent.is_dir() and not any(target.parent.iterdir()):
                target.parent.rmdir()
    files.write_json(path, manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); expected what an export wrote, or an empty folder") from error
    names = found.get("files") if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: found no list of files; expected what an export wrote, or an empty folder")
    return found


def _write_cases(cases: dict[str, case_files.Case], split: splits.Split, settings: ExportSettings) -> None:
    holds_out = layouts.LAYOUTS[settings.layout].holds_out
    tasks = {
        name: {
            "case": case,
            "folder": Path(settings.output),
            "layout": settings.layout,
            "held_out": holds_out and name in split.test,
        }
        for name, case in cases.items()
    }
    notes, failures = run_cases(
        layouts.write_case, tasks, num_workers=settings.num_workers, description=f"write {settings.layout}"
    )
    for note in filter(None, notes.values()):
        log.info("%s", note)
    if failures:
        raise CasesFailedError(failures, len(cases))


def _write_descriptions(
    output: Path, split: splits.Split, folds: list[splits.Split], record: dict[str, Any], layout: str
) -> None:
    """Written last: a data set of nnU-Net without `dataset.json` is one that is not finished."""
    files.write_json(output / SPLIT, record)
    files.write_json(output / nnunet.SPLITS, split_files.nnunet_splits([one.to_dict() for one in folds]))
    if layout == "nnunet":
        num_training = len(split.train) + len(split.validation)
        files.write_json(output / nnunet.DESCRIPTION, nnunet.describe(num_training=num_training))
