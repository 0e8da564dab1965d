"""Segment one scan with a registered model; the result lies on the scan's own grid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits_ml import figures, runtime
from kits_ml.config import PredictSettings
from kits_ml.data import images, volumes
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor
from kits_ml.labels import REGIONS, region_mask
from kits_ml.tracking import registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written.

    Attributes:
        output: the label map.
        overlay: the picture, if one was asked for.
        volumes_ml: volume of each region, millilitres.
    """

    output: Path
    overlay: Path | None
    volumes_ml: dict[str, float]


def predict(settings: PredictSettings) -> Predicted:
    """Segments the scan.

    Raises:
        InputError: a scan that cannot be used, an unknown model, or an output that exists.
    """
    output = Path(settings.output)
    overlay = Path(settings.overlay) if settings.overlay else None
    _check_outputs(output, overlay, overwrite=settings.overwrite)
    image = images.read_image(settings.image)
    if image.note:
        log.info("%s", image.note)
    folder = registry.local_folder(settings.model)
    runtime.configure(num_threads=settings.num_threads)
    predictor = Predictor.load(folder, batch_size=settings.batch_size)
    try:
        label_map = predictor.segment(image.array, spacing_mm=image.spacing_mm, progress="segment")
    except InputError as error:
        raise InputError(f"{settings.image}: {error}") from error
    volumes.write_label_map(output, label_map, image.geometry)
    voxel_ml = float(np.prod(image.spacing_mm)) / 1000
    volumes_ml = {region: float(region_mask(label_map, region).sum() * voxel_ml) for region in REGIONS}
    if overlay:
        title = ", ".join(f"{region} {value:.0f} ml" for region, value in volumes_ml.items())
        figure = figures.overlay_of_case(
            image.array, None, label_map, spacing_mm=image.spacing_mm, title=f"{Path(settings.image).name}\n{title}"
        )
        figures.save_figure(overlay, figure)
    return Predicted(output=output, overlay=overlay, volumes_ml=volumes_ml)


def _check_outputs(output: Path, overlay: Path | None, *, overwrite: bool) -> None:
    if not output.name.endswith(volumes.NIFTI_SUFFIXES):
        raise InputError(f"{output}: expected an output name that ends in .nii.gz or .nii")
    if overlay and overlay.suffix.lower() != ".png":
        raise InputError(f"{overlay}: expected an overlay name that ends in .png")
    for path in (output, overlay):
        if path and path.exists() and not overwrite:
            raise InputError(f"{path}: exists; expected a new name, or --overwrite true")
