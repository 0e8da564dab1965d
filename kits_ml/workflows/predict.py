"""Segment scans with registered models; the result lies on each scan's own grid."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kits_ml import files
from kits_ml.config import PredictSettings, QualitySettings
from kits_ml.data import images, scans, volumes
from kits_ml.data.probability_files import write_probabilities
from kits_ml.data.verification import write_verified
from kits_ml.errors import InputError
from kits_ml.inference.packed_probabilities import PackedProbabilities
from kits_ml.inference.provenance import Provenance
from kits_ml.inference.segmenting import observe_all
from kits_ml.inference.uncertainty import UncertaintyMeter
from kits_ml.labels import region_volumes_ml
from kits_ml.workflows.outputs import Outputs, appearing_together, check_absent, check_spares, outputs_of
from kits_ml.workflows.segmenters import Segmenter, load_segmenter

if TYPE_CHECKING:
    from kits_ml.inference.quality import QualityReport

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written.

    Attributes:
        outputs: the files.
        volumes_ml: volume of each region, millilitres.
        seconds: from the scan in memory to the last file.
        flags: names of what speaks against the prediction; empty where nobody asked for report or page.
    """

    outputs: Outputs
    volumes_ml: dict[str, float]
    seconds: float
    flags: tuple[str, ...] = ()


def predict(settings: PredictSettings) -> Predicted:
    """Segments one scan.

    Raises:
        InputError: a scan that cannot be used, or whose headers allow no DICOM SEG where one is wanted, an unknown
            model, an output that is one of the scan's files, exists or is not as it was written.
    """
    outputs = outputs_of(settings)
    check_spares(outputs, Path(settings.image))
    if not settings.overwrite:
        check_absent(outputs)
    image = read_scan(Path(settings.image))  # before the model, which may be far away
    if outputs.dicom_seg:
        if not image.slice_paths:
            raise InputError(f"dicom_seg: found {settings.image}, expected a folder of DICOM slices")
        from kits_ml.data.dicom_seg import check_source  # DICOM's libraries are half a second of imports

        check_source(image)
    segmenter = load_segmenter(settings.model, settings)
    return predict_scan(segmenter, image, outputs, quality=settings.select(QualitySettings), progress="segment")


def read_scan(path: Path) -> volumes.Volume:
    """Reads a scan, and says what there is to say of it.

    Raises:
        InputError: see `images.read_image`.
    """
    image = images.read_image(path)
    if image.note:
        log.info("%s", image.note)
    return image


def predict_scan(
    segmenter: Segmenter,
    image: volumes.Volume,
    outputs: Outputs,
    *,
    quality: QualitySettings | None = None,
    progress: str | None = None,
) -> Predicted:
    """Segments a scan and writes what is asked for, all of it or, after an error, nothing.

    Args:
        segmenter: what segments.
        image: the scan.
        outputs: the files to write; those that are there are replaced.
        quality: limits of the report; the defaults where none are given.
        progress: what the progress bar over the slices says; without, there is none.

    Raises:
        InputError: a scan that cannot be used, or a label map that is not as it was written.
    """
    started = time.monotonic()
    with appearing_together(outputs) as hidden:
        volumes_ml, flags = _predict_into(hidden, segmenter, image, quality=quality, progress=progress)
    return Predicted(outputs=outputs, volumes_ml=volumes_ml, seconds=time.monotonic() - started, flags=flags)


def _predict_into(
    outputs: Outputs,
    segmenter: Segmenter,
    image: volumes.Volume,
    *,
    quality: QualitySettings | None,
    progress: str | None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Writes the outputs; gives the regions' volumes in millilitres and the flags' names."""
    meter = UncertaintyMeter(image.array.shape) if outputs.report or outputs.page else None
    with _packed(outputs, image) as packed:
        try:
            label_map = segmenter.segment(
                image.array, spacing_mm=image.spacing_mm, progress=progress, observe=observe_all(packed, meter)
            )
        except InputError as error:
            raise InputError(f"{image.path}: {error}") from error
        if packed is not None:
            write_probabilities(outputs.probabilities, packed.foreground, image.geometry)
    volumes_ml = region_volumes_ml(label_map, image.spacing_mm)
    if outputs.overlay:
        _write_overlay(outputs.overlay, image, label_map, volumes_ml)
    provenance = _provenance(segmenter, image)
    flags = ()
    if meter is not None:
        from kits_ml.inference.quality import assess  # measures: a fifth of a second of imports

        report = assess(
            image.array,
            label_map,
            spacing_mm=image.spacing_mm,
            uncertainty=meter,
            training=segmenter.network.description.get("training"),
            settings=quality,
            provenance=provenance,
        )
        _write_quality(outputs, report, image, label_map, meter=meter)
        flags = tuple(flag.name for flag in report.flags)
    if outputs.dicom_seg:
        from kits_ml.data.dicom_seg import write_dicom_seg

        write_dicom_seg(
            outputs.dicom_seg,
            label_map,
            image,
            algorithm_name=provenance.algorithm_name,
            algorithm_version=provenance.algorithm_version,
        )
    write_verified(outputs.output, label_map, image.geometry)
    return volumes_ml, flags


def _provenance(segmenter: Segmenter, image: volumes.Volume) -> Provenance:
    scan = scans.name_of(image.path)
    return segmenter.provenance(scan=scan, note=image.note.replace(str(image.path), scan))


def _packed(outputs: Outputs, image: volumes.Volume) -> AbstractContextManager[PackedProbabilities | None]:
    """Where probabilities are kept until they are written, beside their file; None where nobody asks for them."""
    if outputs.probabilities is None:
        return nullcontext()
    return PackedProbabilities(image.array.shape, outputs.probabilities.parent)


def _write_quality(
    outputs: Outputs, report: QualityReport, image: volumes.Volume, label_map: np.ndarray, *, meter: UncertaintyMeter
) -> None:
    """Writes report and page, those that are asked for, and says what flags there are."""
    for flag in report.flags:
        log.info("%s: %s", image.path, flag.reason)
    if outputs.report:
        files.write_json(outputs.report, report.to_dict())
    if outputs.page:
        from kits_ml.inference.quality_page import render_page  # draws: half a second of imports

        page = render_page(
            report,
            image.array,
            label_map,
            affine=image.geometry.house_affine,
            read_entropy=lambda: meter.entropy,
        )
        files.write_bytes(outputs.page, page.encode())


def _write_overlay(path: Path, image: volumes.Volume, label_map: np.ndarray, volumes_ml: Mapping[str, float]) -> None:
    from kits_ml import figures  # half a second of imports

    title = ", ".join(f"{region} {value:.0f} ml" for region, value in volumes_ml.items())
    figure = figures.overlay_of_case(
        image.array, None, label_map, spacing_mm=image.spacing_mm, title=f"{image.path.name}\n{title}"
    )
    figures.save_figure(path, figure)
