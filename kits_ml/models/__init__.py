"""Network architectures: one builder a file, found by name in a literal dict."""

from __future__ import annotations

import keras

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.labels import NUM_CLASSES
from kits_ml.models.unet import unet
from kits_ml.settings import suggestion

ARCHITECTURES = {
    "unet": unet,
}


def build(settings: TrainSettings) -> keras.Model:
    """Builds the architecture that the settings name, with fresh weights.

    Raises:
        InputError: an unknown name, or an image size that cannot be halved `depth` times.
    """
    if settings.architecture not in ARCHITECTURES:
        raise InputError(
            f"architecture: unknown {settings.architecture!r}{suggestion(settings.architecture, list(ARCHITECTURES))}"
        )
    factor = 2**settings.depth
    if settings.image_size % factor:
        raise InputError(
            f"image_size: found {settings.image_size}, expected a multiple of {factor} for depth {settings.depth}"
        )
    return ARCHITECTURES[settings.architecture](
        image_size=settings.image_size,
        num_classes=NUM_CLASSES,
        base_filters=settings.base_filters,
        depth=settings.depth,
    )
