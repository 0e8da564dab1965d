"""What a client gets of a scan: its segmentation as NIfTI or DICOM SEG, the report on it, the page, or all."""

from __future__ import annotations

import enum
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml.data import volumes
from kits_ml.data.dicom_seg import check_source, write_dicom_seg
from kits_ml.data.verification import write_verified
from kits_ml.errors import InputError
from kits_ml.inference.provenance import Provenance
from kits_ml.inference.segmenting import Window, observe_all
from kits_ml.serving.champion import Model
from kits_ml.serving.jobs import Job
from kits_ml.serving.metrics import Metrics
from kits_ml.serving.refusals import RefusedError
from kits_ml.serving.unpacking import without_folder

SEGMENTATION_NAME, DICOM_SEG_NAME = "segmentation.nii.gz", "segmentation.dcm"
REPORT_NAME, PAGE_NAME = "report.json", "report.html"


class Wanted(enum.StrEnum):
    """What a client asks for."""

    SEGMENTATION = "segmentation"
    DICOM_SEG = "dicom_seg"
    REPORT = "report"
    PAGE = "page"
    ALL = "all"


MEDIA_TYPES = {
    Wanted.SEGMENTATION: "application/gzip",
    Wanted.DICOM_SEG: "application/dicom",
    Wanted.REPORT: "application/json",
    Wanted.PAGE: "text/html",
    Wanted.ALL: "application/zip",
}
FILE_NAMES = {
    Wanted.SEGMENTATION: SEGMENTATION_NAME,
    Wanted.DICOM_SEG: DICOM_SEG_NAME,
    Wanted.REPORT: REPORT_NAME,
    Wanted.PAGE: PAGE_NAME,
    Wanted.ALL: "segmentation.zip",
}


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """How a prediction is reported on; `quality`'s own functions outside of tests.

    Attributes:
        meter: makes an observer of a volume's shape.
        assess: `quality.assess`.
        render_page: `quality_page.render_page`.
    """

    meter: Callable[[tuple[int, ...]], Any]
    assess: Callable[..., Any]
    render_page: Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A body, the version of the model that made it, and the seconds that each part of it took."""

    wanted: Wanted
    body: bytes
    version: str
    seconds: Mapping[str, float]


def segment(
    volume: volumes.Volume,
    model: Model,
    wanted: Wanted,
    *,
    scan: str,
    job: Job,
    reporting: Reporting,
    metrics: Metrics,
) -> Answer:
    """Segments a volume and makes what is wanted of it.

    Args:
        volume: the scan; beside its path is room for files.
        model: that segments.
        wanted: what to make.
        scan: what the client calls it; may be empty.
        job: is asked after each slice and each part whether to go on.
        reporting: how the report and the page are made.
        metrics: are told how long the parts took.

    Raises:
        InputError: a scan that the model cannot use.
        RefusedError: DICOM SEG of a scan that came as NIfTI, or of slices without the identifiers that it needs.
        StoppedJobError: nobody waits for it any more.
    """
    against_dicom_seg = _against_dicom_seg(volume, wanted)
    job.check()
    provenance = model.segmenter.provenance(scan=scan, note=_note(volume, wanted, against_dicom_seg))
    is_reported = wanted in (Wanted.REPORT, Wanted.PAGE, Wanted.ALL)
    meter = reporting.meter(volume.array.shape) if is_reported else None

    def ask_job(index: int, inside: Window, probabilities: np.ndarray) -> None:
        job.check()

    with metrics.stage("segment", job.seconds):
        label_map = model.segmenter.segment(
            volume.array, spacing_mm=volume.spacing_mm, observe=observe_all(ask_job, meter)
        )
    job.check()
    with metrics.stage("pack", job.seconds):
        files = _packed(label_map, volume, wanted, provenance=None if against_dicom_seg else provenance)
    job.check()
    if meter is not None:
        with metrics.stage("report", job.seconds):
            report = reporting.assess(
                volume.array,
                label_map,
                spacing_mm=volume.spacing_mm,
                uncertainty=meter,
                training=model.training,
                provenance=provenance,
            )
            job.check()
            files |= _reported(report, label_map, volume, wanted, meter=meter, reporting=reporting)
    job.check()
    body = _zipped(files) if wanted is Wanted.ALL else files[FILE_NAMES[wanted]]
    return Answer(wanted=wanted, body=body, version=model.version, seconds=dict(job.seconds))


def _against_dicom_seg(volume: volumes.Volume, wanted: Wanted) -> str:
    """Why DICOM SEG is not among the answers; empty where it is.

    Raises:
        RefusedError: it is the only one that is wanted, and cannot be made.
    """
    if wanted not in (Wanted.DICOM_SEG, Wanted.ALL):
        return "not asked for"
    if not volume.slice_paths:
        reason = "a NIfTI file, expected a zip of DICOM slices to answer with DICOM SEG"
    else:
        try:
            check_source(volume)
        except InputError as error:
            reason = without_folder(str(error), Path(volume.path).parent)
        else:
            return ""
    if wanted is Wanted.DICOM_SEG:
        raise RefusedError(422, reason)
    return reason


def _note(volume: volumes.Volume, wanted: Wanted, against_dicom_seg: str) -> str:
    """What was said of the scan, and for all answers to DICOM slices, why DICOM SEG is not among them."""
    if wanted is Wanted.ALL and volume.slice_paths and against_dicom_seg:
        return "; ".join(filter(None, (volume.note, f"no DICOM SEG: {against_dicom_seg}")))
    return volume.note


def _packed(
    label_map: np.ndarray, volume: volumes.Volume, wanted: Wanted, *, provenance: Provenance | None
) -> dict[str, bytes]:
    """The label map in the formats that are wanted; DICOM SEG, which names its maker, where there is a provenance."""
    files, folder = {}, Path(volume.path).parent
    if wanted in (Wanted.SEGMENTATION, Wanted.ALL):
        path = folder / SEGMENTATION_NAME
        try:
            write_verified(path, label_map, volume.geometry)
        except InputError as error:  # no fault of the upload
            raise RuntimeError(str(error)) from error
        files[path.name] = path.read_bytes()
    if provenance is not None:
        path = folder / DICOM_SEG_NAME
        write_dicom_seg(
            path,
            label_map,
            volume,
            algorithm_name=provenance.algorithm_name,
            algorithm_version=provenance.algorithm_version,
        )
        files[path.name] = path.read_bytes()
    return files


def _reported(
    report: Any,
    label_map: np.ndarray,
    volume: volumes.Volume,
    wanted: Wanted,
    *,
    meter: Any,
    reporting: Reporting,
) -> dict[str, bytes]:
    files = {}
    if wanted in (Wanted.REPORT, Wanted.ALL):
        files[REPORT_NAME] = _json(report.to_dict())
    if wanted in (Wanted.PAGE, Wanted.ALL):
        page = reporting.render_page(
            report,
            volume.array,
            label_map,
            affine=volume.geometry.house_affine,
            read_entropy=lambda: meter.entropy,
        )
        files[PAGE_NAME] = page.encode()
    return files


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Files side by side, not packed again, so that a page of the browser finds them without unpacking."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return stream.getvalue()
