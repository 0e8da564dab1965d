"""How training slices are varied."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Random changes of training slices, about as strong as nnU-Net's; validation and test are never changed.

    A probability is per slice drawn and 0 switches a change off. A factor `f` means one between `1 / f` and `f`,
    larger and smaller equally often; that of low resolution one between 1 and `f`. Shifts and elastic changes are
    shares of the slice's side, so that they mean the same at every `image_size`; blur and low resolution are in
    pixels, and change less of a larger slice.

    The kinds and most strengths follow nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z). But rotations
    are those of a patient who lies askew, up to 15 degrees where its 2-D networks see 180; rotation and scale come
    more often, 0.3 against 0.2; shifts are not among its changes; and elastic changes are few and weak.
    """

    augmentation: bool = setting(True, "change training slices at random; false: as prepared, as in the report")
    flip_left_right_probability: float = setting(
        0.5,
        "augmentation: mirror left and right; the liver changes sides, the kidneys look as they may",
        minimum=0,
        maximum=1,
    )
    flip_up_down_probability: float = setting(
        0.0, "augmentation: mirror front and back; for data with prone patients", minimum=0, maximum=1
    )
    rotation_probability: float = setting(0.3, "augmentation: rotate in the plane", minimum=0, maximum=1)
    rotation_degrees: float = setting(
        15.0, "augmentation: largest rotation, either way", unit="degrees", minimum=0, maximum=180
    )
    scale_probability: float = setting(0.3, "augmentation: enlarge or shrink", minimum=0, maximum=1)
    scale_factor: float = setting(1.3, "augmentation: largest change of length", minimum=1, maximum=4)
    shift_probability: float = setting(0.3, "augmentation: shift along rows and columns", minimum=0, maximum=1)
    shift_fraction: float = setting(0.1, "augmentation: largest shift, as share of the side", minimum=0, maximum=1)
    elastic_probability: float = setting(0.15, "augmentation: bend smoothly", minimum=0, maximum=1)
    elastic_fraction: float = setting(
        0.01,
        "augmentation: standard deviation of the bending, as share of the side; above 0.015 tissue may fold",
        minimum=0,
        maximum=0.1,
    )
    brightness_probability: float = setting(0.15, "augmentation: multiply the grey values", minimum=0, maximum=1)
    brightness_factor: float = setting(1.25, "augmentation: largest such factor", minimum=1, maximum=4)
    contrast_probability: float = setting(
        0.15, "augmentation: multiply the distances from the mean grey value", minimum=0, maximum=1
    )
    contrast_factor: float = setting(1.25, "augmentation: largest such factor", minimum=1, maximum=4)
    gamma_probability: float = setting(0.3, "augmentation: raise grey values to a power", minimum=0, maximum=1)
    gamma_factor: float = setting(1.4, "augmentation: largest such power", minimum=1, maximum=4)
    blur_probability: float = setting(0.15, "augmentation: blur", minimum=0, maximum=1)
    blur_sigma_px: float = setting(
        1.0, "augmentation: largest standard deviation of the blur", unit="pixels", minimum=0, maximum=16
    )
    low_resolution_probability: float = setting(
        0.15, "augmentation: make coarser and enlarge again", minimum=0, maximum=1
    )
    low_resolution_factor: float = setting(2.0, "augmentation: largest size of a coarse pixel", minimum=1, maximum=8)
    noise_probability: float = setting(0.15, "augmentation: add Gaussian noise", minimum=0, maximum=1)
    noise_std: float = setting(
        0.05, "augmentation: largest standard deviation of the noise, where white is 1", minimum=0, maximum=1
    )
