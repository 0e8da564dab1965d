"""The network, and the table of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class ArchitectureSettings(Settings):
    """The network."""

    architecture: str = setting("unet", "a name from kits_ml.models.ARCHITECTURES")
    base_filters: int = setting(16, "filters of the first level, of which those of the others follow", minimum=1)
    depth: int = setting(4, "how often the resolution is halved", minimum=1, maximum=8)
    input_slices: int = setting(
        1, "slices the network sees at once, an odd number: the one to segment and its neighbours", minimum=1
    )
    deep_supervision: bool = setting(
        False,
        "train on all outputs where there are several; unet_plus_plus, unet_3_plus, nnunet, residual_encoder_unet",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_slices % 2 == 0:
            raise InputError(f"input_slices: found {self.input_slices}, expected an odd number")


@dataclass(frozen=True, kw_only=True)
class ModelsSettings(Settings):
    """The architectures: parameters, GFLOPs of one image (a multiply-add is two), paper."""

    image_size: int = setting(256, "rows and columns of a slice", unit="pixels", minimum=16, maximum=2048)
    base_filters: int = setting(16, "filters of the first level", minimum=1)
    depth: int = setting(4, "how often the resolution is halved", minimum=1, maximum=8)
    input_slices: int = setting(1, "slices the network sees at once", minimum=1)
