"""Cases -> prepared store and a split by patient."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml import files
from kits_ml.config import PhantomSettings, PrepareSettings, PreprocessingSettings, SelectionSettings, SplitSettings
from kits_ml.data import cases as case_files
from kits_ml.data import claims, patients, slices, splits
from kits_ml.data.manifest import Manifest
from kits_ml.data.selection import Selection
from kits_ml.errors import CasesFailedError
from kits_ml.workers import run_cases
from kits_ml.workflows.select import select_cases

log = logging.getLogger(__name__)

#: Where the cases go that `prepare` and `train` make when they are given no data.
PHANTOM_FOLDER = "data/phantom-small"

#: In the folder of the prepared stores: what selection measured, by the digest of the case.
FINGERPRINTS_JSON = "fingerprints.json"

#: There too: size, modification time and SHA-256 of each source file.
MANIFEST_JSON = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What training needs.

    Attributes:
        cases: the source files of the cases in the store, by name.
        store: the prepared slices.
        split: which case is for what.
        selection: the rule, and which cases it kept and left out.
        split_path: the file in the store that says so, with patients and settings.
    """

    cases: dict[str, case_files.Case]
    store: slices.PreparedStore
    split: splits.Split
    selection: Selection
    split_path: Path


def prepare(settings: PrepareSettings) -> Prepared:
    """Prepares the selected cases of a folder that are not prepared yet, and splits the patients.

    Raises:
        InputError: no cases, none selected, or too few to split.
        CasesFailedError: some cases are bad and `skip_failed_cases` is off; the others stay prepared.
        OSError: a full disk, which it names; whole cases stay prepared.
    """
    folder = settings.data or make_phantom_cases(settings.num_workers)
    cases = {case.name: case for case in case_files.find_cases(folder)}
    digests = _digests(cases, settings)
    selection, unreadable = select_cases(
        cases,
        digests,
        settings.select(SelectionSettings),
        cache=Path(settings.prepared) / FINGERPRINTS_JSON,
        num_workers=settings.num_workers,
    )
    cases = {name: cases[name] for name in selection.kept}
    store_path, failures = _fill_store(cases, {name: digests[name] for name in cases}, settings)
    if (unreadable or failures) and (not settings.skip_failed_cases or len(failures) == len(cases)):
        raise CasesFailedError(unreadable | failures, len(cases) + len(unreadable))
    good = {name: case for name, case in cases.items() if name not in failures}
    store = slices.finish_store(store_path, list(good), settings.select(PreprocessingSettings))
    split = splits.split_patients(
        store.tumour_volumes_ml(),
        settings.select(SplitSettings),
        patients=patients.patients_of(store.slice_digests(), settings.groups_file),
        held_out=[name for name, case in good.items() if case.held_out],
        unusable={**selection.left_out, **failures},
    )
    split_path = _write_split(store, split, settings.select(SplitSettings))
    log.info(
        "prepared %d slices of %d cases in %s: %d cases for training, %d for validation, %d for test",
        len(store.index),
        len(good),
        store.folder,
        len(split.train),
        len(split.validation),
        len(split.test),
    )
    return Prepared(cases=good, store=store, split=split, selection=selection, split_path=split_path)


def _digests(cases: Mapping[str, case_files.Case], settings: PrepareSettings) -> dict[str, str]:
    """Each case's digest; files that are noted in the manifest are not read."""
    manifest = Manifest(Path(settings.prepared) / MANIFEST_JSON)
    source_files = [file for case in cases.values() for file in case.source_files()]
    with files.naming_full_disk(manifest.path):
        sha256 = manifest.sha256(source_files, num_threads=settings.num_workers)
    return {name: case.digest(sha256.__getitem__) for name, case in cases.items()}


def _fill_store(
    cases: Mapping[str, case_files.Case], digests: Mapping[str, str], settings: PrepareSettings
) -> tuple[Path, dict[str, str]]:
    """Prepares the cases that are not prepared yet; returns the store's folder and the messages of failed cases."""
    preprocessing = settings.select(PreprocessingSettings)
    store_path = Path(settings.prepared) / slices.store_digest(digests, preprocessing)
    missing = {
        name: {"case": case, "digest": digests[name], "store": store_path, "settings": preprocessing}
        # the largest first, so that no worker is left alone with it in the end
        for name, case in sorted(cases.items(), key=lambda item: -_num_bytes(item[1]))
        if not slices.link_case(name, digest=digests[name], store=store_path, settings=preprocessing)
    }
    claims.remove_leftovers(store_path)
    notes, failures = run_cases(slices.prepare_case, missing, num_workers=settings.num_workers, description="prepare")
    for note in filter(None, notes.values()):
        log.info("%s", note)
    return store_path, failures


def _num_bytes(case: case_files.Case) -> int:
    return sum(file.stat().st_size for file in case.source_files())


def _write_split(store: slices.PreparedStore, split: splits.Split, settings: SplitSettings) -> Path:
    """Writes the split under a name made of its content, so that two splits of one store never meet."""
    record = {"store": store.digest, **splits.describe(split, settings)}
    digest = hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=8).hexdigest()
    path = store.folder / "splits" / f"{digest}.json"
    files.write_json(path, {"digest": digest, **record})
    return path


def make_phantom_cases(num_workers: int) -> str:
    """Makes the small phantom preset where it is not there yet, and says so.

    Returns:
        The folder of the cases.
    """
    from kits_ml.data import phantom  # real cases need none of it

    log.info("no data given (--data FOLDER): using synthetic phantom cases in %s", PHANTOM_FOLDER)
    phantom.write_cases(PhantomSettings(output=PHANTOM_FOLDER, distribution="small", num_workers=num_workers))
    return PHANTOM_FOLDER
