"""Cases -> prepared store and a split by patient."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kits_ml import files
from kits_ml.config import PhantomSettings, PrepareSettings, PreprocessingSettings, SplitSettings
from kits_ml.data import cases as case_files
from kits_ml.data import phantom, slices
from kits_ml.data.splits import Split, split_patients
from kits_ml.errors import CasesFailedError
from kits_ml.workers import run_cases

log = logging.getLogger(__name__)

#: Where the cases go that `prepare` and `train` make when they are given no data.
PHANTOM_FOLDER = "data/phantom-small"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What training needs.

    Attributes:
        cases: the source files of the cases in the store, by name.
        store: the prepared slices.
        split: which case is for what.
    """

    cases: dict[str, case_files.Case]
    store: slices.PreparedStore
    split: Split


def prepare(settings: PrepareSettings) -> Prepared:
    """Prepares all cases of a folder that are not prepared yet, and splits the patients.

    Raises:
        InputError: no cases, or too few to split.
        CasesFailedError: some cases are bad and `skip_failed_cases` is off; the others stay prepared.
    """
    folder = settings.data or make_phantom_cases(settings.num_workers)
    preprocessing = settings.select(PreprocessingSettings)
    cases = {case.name: case for case in case_files.find_cases(folder)}
    digests, _ = run_cases(
        case_files.Case.digest,
        {name: {"self": case} for name, case in cases.items()},
        num_workers=1,
        description="fingerprint",
    )
    store_path = Path(settings.prepared) / slices.store_digest(digests, preprocessing)
    missing = {
        name: {"case": case, "digest": digests[name], "store": store_path, "settings": preprocessing}
        for name, case in cases.items()
        if not slices.link_case(name, digest=digests[name], store=store_path, settings=preprocessing)
    }
    _remove_stale_scratch(store_path)
    notes, failures = run_cases(slices.prepare_case, missing, num_workers=settings.num_workers, description="prepare")
    for note in filter(None, notes.values()):
        log.info("%s", note)
    if failures and (not settings.skip_failed_cases or len(failures) == len(cases)):
        raise CasesFailedError(failures, len(cases))
    good = {name: case for name, case in cases.items() if name not in failures}
    store = slices.finish_store(store_path, list(good), preprocessing)
    split = split_patients(store.has_tumour(), settings.select(SplitSettings))
    files.write_json(
        store_path / "split.json", {"settings": settings.select(SplitSettings).to_dict(), **split.to_dict()}
    )
    log.info(
        "prepared %d slices of %d cases in %s: %d cases for training, %d for validation, %d for test",
        len(store.index),
        len(good),
        store.folder,
        len(split.train),
        len(split.validation),
        len(split.test),
    )
    return Prepared(cases=good, store=store, split=split)


def make_phantom_cases(num_workers: int) -> str:
    """Makes the small phantom preset where it is not there yet, and says so.

    Returns:
        The folder of the cases.
    """
    log.info("no data given (--data FOLDER): using synthetic phantom cases in %s", PHANTOM_FOLDER)
    phantom.write_cases(PhantomSettings(output=PHANTOM_FOLDER, distribution="small", num_workers=num_workers))
    return PHANTOM_FOLDER


def _remove_stale_scratch(store_path: Path) -> None:
    """Clears what killed processes left: scratch folders whose process is gone."""
    for scratch in store_path.glob(".*.partial"):
        pid = scratch.name.split(".")[-2]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(scratch, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
