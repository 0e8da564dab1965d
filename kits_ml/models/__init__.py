"""Network architectures: one builder a file, found by name in a literal dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.labels import NUM_CLASSES
from kits_ml.models.attention_unet import attention_unet
from kits_ml.models.cbam_unet import cbam_unet
from kits_ml.models.convnext_unet import convnext_unet
from kits_ml.models.deeplab_v3_plus import deeplab_v3_plus
from kits_ml.models.dense_unet import dense_unet
from kits_ml.models.multires_unet import multires_unet
from kits_ml.models.nnunet import nnunet
from kits_ml.models.r2_unet import r2_unet
from kits_ml.models.residual_encoder_unet import residual_encoder_unet
from kits_ml.models.residual_unet import residual_unet
from kits_ml.models.se_unet import se_unet
from kits_ml.models.segformer import segformer
from kits_ml.models.unet import unet
from kits_ml.models.unet_3_plus import unet_3_plus
from kits_ml.models.unet_plus_plus import unet_plus_plus
from kits_ml.settings import suggestion


class Architecture(NamedTuple):
    """A way to build a network.

    Attributes:
        builder: takes `image_size`, `num_classes`, `base_filters`, `depth`, `input_channels` and gives a model.
        title: its usual name.
        paper: where it is from.
        deep_supervision: whether the builder also takes `deep_supervision`.
    """

    builder: Callable[..., keras.Model]
    title: str
    paper: str
    deep_supervision: bool = False


ARCHITECTURES = {
    "unet": Architecture(unet, "U-Net", "Ronneberger 2015, 1505.04597"),
    "residual_unet": Architecture(residual_unet, "residual U-Net", "Zhang 2018, 1711.10684"),
    "attention_unet": Architecture(attention_unet, "attention U-Net", "Oktay 2018, 1804.03999"),
    "unet_plus_plus": Architecture(unet_plus_plus, "U-Net++", "Zhou 2018, 1807.10165", True),
    "unet_3_plus": Architecture(unet_3_plus, "UNet 3+", "Huang 2020, 2004.08790", True),
    "r2_unet": Architecture(r2_unet, "R2U-Net", "Alom 2018, 1802.06955"),
    "multires_unet": Architecture(multires_unet, "MultiResUNet", "Ibtehaz 2019, 1902.04049"),
    "dense_unet": Architecture(dense_unet, "dense U-Net (FC-DenseNet)", "Jegou 2017, 1611.09326"),
    "se_unet": Architecture(se_unet, "squeeze-and-excitation U-Net", "Rundo 2019, 1904.08254"),
    "cbam_unet": Architecture(cbam_unet, "CBAM U-Net", "Woo 2018, 1807.06521"),
    "nnunet": Architecture(nnunet, "nnU-Net's 2-D U-Net", "Isensee 2021, 1904.08128", True),
    "residual_encoder_unet": Architecture(
        residual_encoder_unet, "nnU-Net's residual-encoder U-Net", "Isensee 2024, 2404.09556", True
    ),
    "convnext_unet": Architecture(convnext_unet, "ConvNeXt U-Net (MedNeXt)", "Roy 2023, 2303.09975"),
    "deeplab_v3_plus": Architecture(deeplab_v3_plus, "DeepLabV3+", "Chen 2018, 1802.02611"),
    "segformer": Architecture(segformer, "SegFormer", "Xie 2021, 2105.15203"),
}


def build(settings: TrainSettings) -> keras.Model:
    """Builds the architecture that the settings name, with fresh weights.

    Returns:
        A model with one output, or with a list of them where `deep_supervision` is on: see `without_supervision`.

    Raises:
        InputError: an unknown name, an image size that cannot be halved `depth` times or is one pixel then, or deep
            supervision where there is none, or of a network so shallow that it has one output.
    """
    if settings.architecture not in ARCHITECTURES:
        raise InputError(
            f"architecture: unknown {settings.architecture!r}{suggestion(settings.architecture, list(ARCHITECTURES))}"
        )
    factor = 2**settings.depth
    if settings.image_size % factor or settings.image_size == factor:
        raise InputError(
            f"image_size: found {settings.image_size}, expected a multiple of {factor} for depth {settings.depth}, "
            f"and at least {2 * factor}: one pixel is nothing to normalise"
        )
    architecture = ARCHITECTURES[settings.architecture]
    if settings.deep_supervision and not architecture.deep_supervision:
        able = ", ".join(name for name, one in ARCHITECTURES.items() if one.deep_supervision)
        raise InputError(f"deep_supervision: not for {settings.architecture}, expected one of {able}")
    model = architecture.builder(
        image_size=settings.image_size,
        num_classes=NUM_CLASSES,
        base_filters=settings.base_filters,
        depth=settings.depth,
        input_channels=settings.input_slices,
        **({"deep_supervision": True} if settings.deep_supervision else {}),
    )
    if settings.deep_supervision and len(model.outputs) == 1:
        raise InputError(
            f"deep_supervision: found true, but {settings.architecture} of depth {settings.depth} has one output; "
            "expected a greater depth"
        )
    return model


def without_supervision(model: keras.Model) -> keras.Model:
    """The model with its first output alone, the one to predict with; the weights are shared.

    A model that has one output already is given back as it is.
    """
    if not isinstance(model.output, list):
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
