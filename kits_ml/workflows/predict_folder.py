"""Segment a folder of scans: goes on where it stopped, and past scans that cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import kits_ml
from kits_ml import files, runtime
from kits_ml.config import PredictSettings, QualitySettings
from kits_ml.data import scans, volumes
from kits_ml.errors import InputError, first_line
from kits_ml.labels import REGIONS
from kits_ml.workflows.outputs import SUFFIXES, Outputs, check_suffix
from kits_ml.workflows.predict import Predicted, predict_scan, read_scan
from kits_ml.workflows.scan_jobs import ScanJob
from kits_ml.workflows.segmenters import Segmenter, load_segmenter

log = logging.getLogger(__name__)

PREDICTIONS_CSV = "predictions.csv"

#: Of `predictions.csv`. A scan that failed has a message and nothing else; one that got all but its DICOM SEG has a
#: message too. Flags are there with a report or a page.
COLUMNS = ("name", "image", *(f"{region}_ml" for region in REGIONS), "flags", "seconds", "message")


@dataclass(frozen=True, kw_only=True)
class PredictedFolder:
    """What became of a folder of scans.

    Attributes:
        output: the folder with a label map a scan, and `predictions.csv`.
        rows: of that table, by the scan's name.
        num_kept: how many of them were there from before.
        failures: messages by the scan's name, also of those that got all but their DICOM SEG.
    """

    output: Path
    rows: Mapping[str, Mapping[str, Any]]
    num_kept: int
    failures: Mapping[str, str]


def is_folder(settings: PredictSettings) -> bool:
    """Whether a folder of scans is meant: the image is a folder, and the output no NIfTI file."""
    return Path(settings.image).is_dir() and not settings.output.lower().endswith(volumes.NIFTI_SUFFIXES)


def predict_folder(settings: PredictSettings) -> PredictedFolder:
    """Segments each scan of a folder, see `scans.find_scans`.

    A scan that cannot be segmented, for whatever reason, does not stop the rest; a disk that is full does, for none
    of the rest would fare better.

    A scan whose outputs are there, made of the same file by the same models with the same settings, is not done
    again. Outputs of anything else are left alone and the scan counts as failed, unless `overwrite` is set. A scan
    itself is never replaced.

    Raises:
        InputError: no scans, an unknown model, names of outputs that cannot be used, or the folder of the scans.
        OSError: the disk is full.
    """
    output, names = Path(settings.output), _names_of_outputs(settings)
    if output.resolve() == Path(settings.image).resolve():
        raise InputError(f"output: found {settings.output}, the folder of the scans; expected another folder")
    found = scans.find_scans(settings.image, leave_out=output)
    segmenter = load_segmenter(settings.model, settings)
    made_by = _made_by(segmenter, settings)
    rows: dict[str, Mapping[str, Any]] = {}
    num_kept = 0
    try:
        for scan in tqdm(found, desc="predict", unit="scan"):
            job = ScanJob(scan=scan, folder=output, names=names, made_by=made_by)
            rows[scan.name], is_kept = _attempt(job, segmenter, settings)
            num_kept += is_kept
    except BaseException as error:  # Ctrl-C and a full disk leave a table of what is done
        if files.is_disk_full(error):
            error.filename = error.filename or str(output)
        with contextlib.suppress(OSError):
            _write_table(output, rows)
        raise
    _write_table(output, rows)
    failures = {name: row["message"] for name, row in rows.items() if "message" in row}
    return PredictedFolder(output=output, rows=rows, num_kept=num_kept, failures=failures)


def _attempt(job: ScanJob, segmenter: Segmenter, settings: PredictSettings) -> tuple[Mapping[str, Any], bool]:
    """Segments a scan unless that is done; gives its row of the table, and whether it was there."""
    scan = {"name": job.scan.name, "image": str(job.scan.path)}
    try:
        if (kept := job.finished()) is not None:
            return kept, True
        predicted, missing = _predict(job, segmenter, settings)
        row = scan | {f"{region}_ml": round(value, 3) for region, value in predicted.volumes_ml.items()}
        row |= {"flags": " ".join(predicted.flags), "seconds": round(predicted.seconds, 1)}
        if missing:
            row["message"] = _say(job, missing)
        job.finish(row)
        return row, False
    except Exception as error:
        if files.is_disk_full(error):
            raise
        message = _message(error)
    return scan | {"message": _say(job, message)}, False


def _predict(job: ScanJob, segmenter: Segmenter, settings: PredictSettings) -> tuple[Predicted, str]:
    """Segments a scan; says which of its outputs it cannot have. After an error all is as before."""
    before = job.begin(overwrite=settings.overwrite)
    try:
        image = read_scan(job.scan.path)
        outputs, missing = _possible(job.outputs, image)
        return predict_scan(segmenter, image, outputs, quality=settings.select(QualitySettings)), missing
    except BaseException:
        job.withdraw(before)
        raise


def _possible(outputs: Outputs, image: volumes.Volume) -> tuple[Outputs, str]:
    """The outputs that a scan can have, and why it cannot have the others; a series may allow no DICOM SEG."""
    if outputs.dicom_seg:
        from kits_ml.data.dicom_seg import check_source  # DICOM's libraries are half a second of imports

        try:
            check_source(image)
        except InputError as error:
            return dataclasses.replace(outputs, dicom_seg=None), f"all but the DICOM SEG is there: {error}"
    return outputs, ""


def _say(job: ScanJob, message: str) -> str:
    """Says what is wrong with a scan now, above the progress bar; it is said again at the end."""
    tqdm.write(f"{job.scan.name}: {message}", file=sys.stderr)
    return message


def _message(error: Exception) -> str:
    """What is wrong, in one line. Where the fault is the program's, the log says where."""
    if runtime.is_out_of_memory(error):
        return f"out of memory ({first_line(error)}); expected a smaller scan, fewer outputs or a smaller batch_size"
    if isinstance(error, InputError | OSError):
        return " ".join(str(error).split())
    log.error("a fault of the program:", exc_info=error)
    return f"{type(error).__name__}: {first_line(error)}"


def _write_table(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    if rows:
        files.write_csv(folder / PREDICTIONS_CSV, rows.values(), list(COLUMNS))


def _names_of_outputs(settings: PredictSettings) -> dict[str, str]:
    """Names for the outputs besides the label map: each kind has a folder of its own."""
    given = {name: getattr(settings, name) for name in SUFFIXES if name != "output"}
    names = {name: value for name, value in given.items() if value is not None}
    for name, value in names.items():
        check_suffix(name, value)
        if Path(value).name != value or value.startswith("."):
            raise InputError(
                f"{name}: found {value}, expected a plain name for a folder of scans, such as {name}.png"
            )
    folders = [value.partition(".")[0] for value in names.values()]
    if len(set(folders)) < len(folders):
        raise InputError(f"found {', '.join(names.values())}; expected names that differ before the first dot")
    return names


def _made_by(segmenter: Segmenter, settings: PredictSettings) -> str:
    """A digest of all that outputs depend on besides the scan."""
    content = {
        "models": segmenter.digests(),
        "postprocessing": segmenter.postprocessing.to_dict(),
        "test_time_augmentation": settings.test_time_augmentation,
        "engine": settings.engine,
        "kits_ml": kits_ml.__version__,
    }
    if settings.report or settings.page:
        content["quality"] = settings.select(QualitySettings).to_dict()
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
