"""Fetching KiTS19 from its official sources into the KiTS layout.

A case appears with its label map first and its image last, each by one atomic rename of a file that was read to its
end: whenever the fetch is killed, there is no case whose image or label map is not whole.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import nibabel as nib
from isal import igzip, isal_zlib

from kits_ml.config import FetchSettings
from kits_ml.data.download import Patience, StoppedError, UnreachableError, download
from kits_ml.data.fetch_progress import FetchProgress
from kits_ml.data.manifest import Manifest
from kits_ml.data.partial import DamagedError, DiskFullError, Partial, disk_errors, write_atomically
from kits_ml.errors import CasesFailedError, InputError

NUM_CASES = 300
NUM_LABELLED_CASES = 210

LICENCE = "CC BY-NC-SA 4.0"

ATTRIBUTION = f"""\
KiTS19: kidney tumour CT images, label maps and clinical records, by N. Heller and others.
Licence: {LICENCE}, https://creativecommons.org/licenses/by-nc-sa/4.0/
That is: name the authors, no commercial use, share what you make of it under the same licence.

Sources: https://github.com/neheller/kits19
         https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging

To cite:
N. Heller et al., "The KiTS19 Challenge Data: 300 Kidney Tumor Cases with Clinical Context, CT Semantic
Segmentations, and Surgical Outcomes", arXiv:1904.00445, 2019.
N. Heller et al., "The state of the art in kidney and kidney tumor segmentation in contrast-enhanced CT imaging:
Results of the KiTS19 challenge", Medical Image Analysis 67, 101821, 2021.
"""

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_KITS_JSON = "kits.json"
#: How long an interrupted fetch waits for its threads; a thread that hangs in the network dies with the process.
_FAREWELL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class FetchSummary:
    """What a fetch did.

    Attributes:
        cases: the cases asked for, all of which are there now.
        num_downloaded: files that were downloaded.
        num_present: files that were there already, whole.
        num_bytes: size of the downloaded files.
    """

    cases: tuple[str, ...]
    num_downloaded: int
    num_present: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file: its place below the output folder, its address, and how to tell that it is whole."""

    name: str
    url: str
    magic: bytes
    check: Callable[[Path], None]


def fetch(settings: FetchSettings) -> FetchSummary:
    """Brings the chosen cases and `kits.json` into a folder in the KiTS layout; what is there and whole stays.

    May be killed at any moment and called again, also while another fetch works on the same folder.

    Raises:
        InputError: settings that make no sense, a full disk, or a server that cannot be reached at all.
        CasesFailedError: some files could not be had; all others are there.
    """
    cases = parse_cases(settings.cases)
    for name in ("imaging_url", "labels_url"):
        if not re.match(r"https?://[^/]", getattr(settings, name)):
            raise InputError(
                f"{name}: found {getattr(settings, name)!r}, expected an address with http:// or https://"
            )
    output = Path(settings.output)
    with disk_errors(output):
        (output / ".fetch").mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(output / ".fetch" / "licence.lock"):
            write_atomically(output / "LICENSE-KiTS19.txt", ATTRIBUTION)
    jobs = {_KITS_JSON: [_kits_json(settings)]} | {case: _files(case, settings) for case in cases}
    progress = FetchProgress(sum(len(files) for files in jobs.values()))
    try:
        progress.say(f"KiTS19 is licensed {LICENCE} (non-commercial); see {output / 'LICENSE-KiTS19.txt'}")
        unlabelled = [case for case in cases if not _is_labelled(case)]
        if unlabelled:
            progress.say(f"{unlabelled[0]} to {unlabelled[-1]} have no published labels: images only")
        return _run(jobs, settings=settings, progress=progress)
    finally:
        progress.close()


def parse_cases(text: str) -> list[str]:
    """Names of cases from text such as `"0-47, 60, case_00123"` or `"all"` (the labelled ones), in order.

    Raises:
        InputError: not such a text, or a number that KiTS19 does not have.
    """
    if text.strip() == "all":
        return [_case_name(number) for number in range(NUM_LABELLED_CASES)]
    numbers = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:case_)?(\d+)\s*(?:-\s*(?:case_)?(\d+)\s*)?", part)
        if match is None:
            raise InputError(f"cases: found {part.strip()!r}, expected such as 0-47,60,case_00123 or all")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < NUM_CASES:
            raise InputError(f"cases: found {part.strip()!r}, expected numbers from 0 to {NUM_CASES - 1}, rising")
        numbers.update(range(first, last + 1))
    return [_case_name(number) for number in sorted(numbers)]


def check_nifti(path: Path) -> None:
    """Reads a `.nii.gz` to its end, in bounded memory.

    Raises:
        DamagedError: the gzip stream is cut or fails its checksum, or the volume is shorter than its header says.
    """
    try:
        with igzip.open(path, "rb") as stream:
            start = stream.read(nib.Nifti1Header.template_dtype.itemsize)
            num_bytes = len(start)
            while chunk := stream.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
        header = nib.Nifti1Header(start, check=False)
        if header["magic"] not in (b"n+1", b"ni1"):
            raise ValueError("no NIfTI magic")
        num_voxels = 1
        for size in header.get_data_shape():
            num_voxels *= size
        expected = int(header["vox_offset"]) + num_voxels * header.get_data_dtype().itemsize
    except (EOFError, zlib.error, isal_zlib.error, igzip.BadGzipFile) as error:
        raise DamagedError(f"the gzip stream is cut or damaged ({error})") from error
    except (ValueError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError) as error:
        raise DamagedError(f"what is packed is not NIfTI ({error})") from error
    if num_bytes < expected:
        raise DamagedError(f"found {num_bytes} bytes unpacked, expected {expected} by its NIfTI header")


def check_kits_json(path: Path) -> None:
    """Reads `kits.json`: a list with a record for each case.

    Raises:
        DamagedError: it is something else.
    """
    try:
        records = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(f"not JSON ({error})") from error
    if not isinstance(records, list) or not all(isinstance(one, dict) and "case_id" in one for one in records):
        raise DamagedError("found other JSON, expected a list of records with a case_id")


def _run(jobs: dict[str, list[_File]], *, settings: FetchSettings, progress: FetchProgress) -> FetchSummary:
    """Works through the jobs in daemon threads: Ctrl-C need not wait for a server that does not answer."""
    worker = _Worker(settings, progress)
    waiting, results = queue.SimpleQueue(), queue.SimpleQueue()
    for job in jobs.items():
        waiting.put(job)

    def work(row: int) -> None:
        while not worker.stop.is_set():
            try:
                name, files = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((name, worker.job(name, files, row=row)))
            except BaseException as error:
                results.put((name, error))

    threads = [
        threading.Thread(target=work, args=(row,), daemon=True) for row in range(min(settings.num_workers, len(jobs)))
    ]
    sizes: list[int | None] = []
    failures: dict[str, str] = {}
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            name, result = results.get()
            if isinstance(result, (DiskFullError, UnreachableError)):
                raise result  # it would be the same for all others
            if isinstance(result, InputError):
                failures[name] = str(result)
                progress.say(f"{name}: failed: {result}")
            elif isinstance(result, BaseException):
                raise result
            else:
                sizes += result
    finally:
        worker.stop.set()
        for thread in threads:
            thread.join(_FAREWELL_S / len(threads))
    if failures:
        raise CasesFailedError(failures, len(jobs) - (_KITS_JSON not in failures))
    downloaded = [size for size in sizes if size is not None]
    return FetchSummary(
        cases=tuple(name for name in jobs if name != _KITS_JSON),
        num_downloaded=len(downloaded),
        num_present=len(sizes) - len(downloaded),
        num_bytes=sum(downloaded),
    )


class _Worker:
    """What the threads share, and the work on one case."""

    def __init__(self, settings: FetchSettings, progress: FetchProgress):
        self.stop = threading.Event()
        self._overwrite = settings.overwrite
        self._patience = Patience(
            timeout_s=settings.timeout_s, num_retries=settings.num_retries, backoff_s=settings.backoff_s
        )
        self._output = Path(settings.output)
        self._partials = self._output / ".fetch"
        self._manifest = Manifest(self._partials / "verified.json", folder=self._output)
        self._progress = progress

    def job(self, name: str, files: list[_File], *, row: int) -> list[int | None]:
        """All files of a case, one after the other; the bytes downloaded, `None` for a file that was there."""
        with disk_errors(self._output), self._lock(name):
            return [self._file(file, row=row) for file in files]

    def _file(self, file: _File, *, row: int) -> int | None:
        target = self._output / file.name
        partial = Partial(self._partials / f"{file.name.replace('/', '-')}.part")
        if not self._overwrite and self._is_whole(target, file):
            partial.discard()
            self._progress.done(file.name, None)
            return None
        with self._progress.file(file.name, row=row) as on_progress:
            download(
                file.url,
                partial,
                patience=self._patience,
                magic=file.magic,
                check=file.check,
                on_progress=on_progress,
                stop=self.stop,
            )
        num_bytes = partial.size
        partial.publish(target)
        self._manifest.add(target)
        self._progress.done(file.name, num_bytes)
        return num_bytes

    def _is_whole(self, target: Path, file: _File) -> bool:
        if self._manifest.holds(target):
            return True
        if not target.exists():
            return False
        try:
            file.check(target)
        except DamagedError as error:
            self._progress.say(f"{target}: {error}; fetching it again")
            return False
        self._manifest.add(target)
        return True

    def _lock(self, name: str) -> filelock.BaseFileLock:
        """One fetch at a time works on a case; a second one waits, and then finds the files."""
        lock = filelock.FileLock(self._partials / f"{name}.lock")
        said = False
        while True:
            try:
                return lock.acquire(timeout=0.2)
            except filelock.Timeout:
                if self.stop.is_set():
                    raise StoppedError(name) from None
                if not said:
                    self._progress.say(f"{name}: another fetch is at it; waiting")
                said = True


def _kits_json(settings: FetchSettings) -> _File:
    url = f"{settings.labels_url.rstrip('/')}/{_KITS_JSON}"
    return _File(name=_KITS_JSON, url=url, magic=b"[", check=check_kits_json)


def _files(case: str, settings: FetchSettings) -> list[_File]:
    """Label map first, image last: a case without its image is refused by name."""
    image_url = f"{settings.imaging_url.rstrip('/')}/{case}.nii.gz"
    label_url = f"{settings.labels_url.rstrip('/')}/{case}/segmentation.nii.gz"
    image = _File(name=f"{case}/imaging.nii.gz", url=image_url, magic=_GZIP_MAGIC, check=check_nifti)
    label = _File(name=f"{case}/segmentation.nii.gz", url=label_url, magic=_GZIP_MAGIC, check=check_nifti)
    return [label, image] if _is_labelled(case) else [image]


def _case_name(number: int) -> str:
    return f"case_{number:05d}"


def _is_labelled(case: str) -> bool:
    return int(case.removeprefix("case_")) < NUM_LABELLED_CASES
