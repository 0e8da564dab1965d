"""What training minimises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting

#: The parts that each loss is the weighted sum of.
LOSS_PARTS: Mapping[str, tuple[str, ...]] = {
    "dice_crossentropy": ("dice", "crossentropy"),
    "dice_topk_crossentropy": ("dice", "topk_crossentropy"),
    "dice_focal": ("dice", "focal"),
    "dice_crossentropy_boundary": ("dice", "crossentropy", "boundary"),
    "dice": ("dice",),
    "generalized_dice": ("generalized_dice",),
    "generalized_dice_crossentropy": ("generalized_dice", "crossentropy"),
    "tversky": ("tversky",),
    "tversky_crossentropy": ("tversky", "crossentropy"),
    "focal_tversky": ("focal_tversky",),
    "focal_tversky_crossentropy": ("focal_tversky", "crossentropy"),
    "categorical_crossentropy": ("crossentropy",),
    "topk_crossentropy": ("topk_crossentropy",),
    "focal": ("focal",),
}

#: The setting that weighs each part.
PART_WEIGHTS: Mapping[str, str] = {
    "dice": "overlap_weight",
    "generalized_dice": "overlap_weight",
    "tversky": "overlap_weight",
    "focal_tversky": "overlap_weight",
    "boundary": "boundary_weight",
    "crossentropy": "pixel_weight",
    "topk_crossentropy": "pixel_weight",
    "focal": "pixel_weight",
}


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The loss."""

    loss: Literal[
        "dice_crossentropy",
        "dice_topk_crossentropy",
        "dice_focal",
        "dice_crossentropy_boundary",
        "dice",
        "generalized_dice",
        "generalized_dice_crossentropy",
        "tversky",
        "tversky_crossentropy",
        "focal_tversky",
        "focal_tversky_crossentropy",
        "categorical_crossentropy",
        "topk_crossentropy",
        "focal",
    ] = setting("dice_crossentropy", "dice_crossentropy: ours; categorical_crossentropy: the report's")
    overlap_weight: float = setting(1.0, "of the Dice or Tversky part of the loss", minimum=0)
    pixel_weight: float = setting(1.0, "of the cross-entropy or focal part", minimum=0)
    boundary_weight: float = setting(1.0, "of the boundary part", minimum=0)
    class_weights: str | None = setting(
        None, "what a pixel of background, kidney, tumour weighs in the cross-entropy or focal part, such as 0.2,1,3"
    )
    overlap_per_slice: bool = setting(
        False, "overlap and boundary of each slice, then their mean; false: of the batch as one"
    )
    overlap_smoothing: float = setting(
        1.0, "added above and below the fraction bar of overlap and boundary", unit="pixels", minimum=1e-5
    )
    skip_absent_classes: bool = setting(
        False, "classes that the labels do not show leave the mean of overlap and boundary; false: there they cost"
    )
    tversky_alpha: float = setting(0.3, "what a false positive costs in the Tversky part", minimum=0)
    tversky_beta: float = setting(0.7, "what a false negative costs in the Tversky part", minimum=0)
    focal_tversky_gamma: float = setting(4 / 3, "focal Tversky is (1 - Tversky) ^ (1 / gamma)", minimum=1, maximum=3)
    focal_gamma: float = setting(2.0, "the focal part is (1 - p) ^ gamma times the cross-entropy", minimum=0)
    topk_percent: int = setting(
        10,
        "share of the batch's pixels, the worst ones, that top-k cross-entropy sees",
        unit="%",
        minimum=1,
        maximum=100,
    )
    boundary_tolerance: int = setting(
        2, "how far apart boundaries still meet in the boundary part", unit="pixels", minimum=0
    )
    deep_supervision_weights: Literal["resolution", "halving", "equal"] = setting(
        "resolution",
        "of the outputs of deep supervision; resolution: as their rows; halving: each half the one before; equal",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tversky_alpha + self.tversky_beta == 0:
            raise InputError("tversky_alpha: found 0 with tversky_beta 0, expected one of them above 0")
        weights = {PART_WEIGHTS[part] for part in LOSS_PARTS[self.loss]}
        if not self.loss_parts:
            raise InputError(
                f"{min(weights)}: found 0, but nothing else is in the loss {self.loss}; expected above 0"
            )
        if self.class_weights is not None and "pixel_weight" not in weights:
            raise InputError(
                f"class_weights: given with the loss {self.loss}, which has no cross-entropy or focal part"
            )
        if self.class_weights is not None and not self.pixel_weight:
            raise InputError(f"class_weights: found {self.class_weights} with pixel_weight 0, expected it above 0")
        parse_class_weights(self.class_weights)

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """The parts of the loss without those that weigh nothing."""
        return tuple(part for part in LOSS_PARTS[self.loss] if getattr(self, PART_WEIGHTS[part]))


def parse_class_weights(text: str | None) -> tuple[float, ...] | None:
    """`"0.2,1,3"` -> `(0.2, 1.0, 3.0)`: what a pixel of each class weighs; None stays None.

    Raises:
        InputError: not one finite number for each class, a negative one, or nothing but zeros.
    """
    from kits_ml.labels import LABEL_NAMES  # brings numpy, which `--help` does without

    if text is None:
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    sound = all(math.isfinite(weight) and weight >= 0 for weight in weights) and any(weights)
    if len(weights) != len(LABEL_NAMES) or not sound:
        raise InputError(
            f"class_weights: found {text!r}, expected {len(LABEL_NAMES)} numbers with commas between them "
            f"({', '.join(LABEL_NAMES.values())}), none negative, one above 0"
        )
    return weights
