"""What a phantom case is like before anything is drawn: sizes, spacing and HU as KiTS19 has them.

The numbers are quantiles of the 210 labelled KiTS19 cases (slices, spacing, voxels and mean HU per label of each
case). A value is drawn by putting a uniform number through the interpolated quantile function, so the phantom's
marginals are KiTS19's own; a Gaussian copula ties the values that go together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr

Distribution = Literal["kits19", "small"]

#: The matrix to which the in-plane spacing belongs; other matrices cover the same field of view.
MATRIX = 512

#: Fewest and most slices of a KiTS19 case.
SLICE_LIMITS = (29, 1059)
SPACING_Z_LIMITS_MM = (0.5, 5.0)

# np.percentile(column, [0, 5, 10, 25, 50, 75, 90, 95, 100]) of each column; volumes are voxels times spacing.
_PROBABILITIES = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 1.0)
_QUANTILES = {
    "spacing_xy_mm": (0.438, 0.657, 0.683, 0.718, 0.781, 0.868, 0.963, 0.977, 1.041),
    "kidney_ml": (90.7, 258.7, 289.1, 352.5, 407.5, 490.1, 566.9, 612.0, 764.7),
    "kidney_hu": (34.9, 65.2, 72.9, 90.8, 108.1, 128.6, 160.0, 174.0, 221.6),
    "tumour_hu": (5.3, 30.8, 38.1, 57.4, 76.5, 99.9, 133.1, 158.3, 245.1),
    "tumour_ml": (0.8, 2.6, 4.0, 7.9, 30.1, 93.5, 373.4, 613.9, 1463.8),
}
# np.corrcoef of the columns above (logarithms of the volumes); only those beyond 0.25 are kept.
_CORRELATIONS = {
    ("spacing_xy_mm", "kidney_ml"): 0.50,
    ("kidney_hu", "tumour_hu"): 0.60,
    ("tumour_hu", "tumour_ml"): -0.31,
}
# Percentiles of hu_max; 154 of 210 cases lie below 3071, the end of the 12-bit scale, and 7 above it.
_HU_MAX_PROBABILITIES = (0.0, 0.05, 0.10, 0.25, 0.50, 0.733, 0.967, 1.0)
_HU_MAX_QUANTILES = (1088.0, 1268.0, 1333.0, 1454.0, 1733.0, 3071.0, 3071.0, 18558.0)
# Counts of hu_min: what the scanner puts outside its field of view. -1024 stands for no padding.
_HU_MIN_COUNTS = {-1024: 163, -2048: 43, -3056: 4}
# Counts of spacing_z_mm.
_SPACING_Z_COUNTS = {5.0: 86, 3.0: 38, 0.5: 31, 2.5: 23, 1.0: 18, 1.25: 5, 2.0: 4, 4.0: 2, 1.5: 2, 3.75: 1}
# The scan's length is what is roughly constant, so slice count follows from spacing: percentiles, as above, of
# slices * spacing_z_mm for spacing up to the key.
_LENGTH_QUANTILES_MM = {
    1.0: (162.0, 234.0, 255.0, 274.0, 306.0, 362.0, 445.0, 515.0, 734.0),
    2.5: (170.0, 184.0, 230.0, 267.0, 441.0, 496.0, 635.0, 679.0, 755.0),
    3.75: (150.0, 159.0, 183.0, 226.0, 309.0, 474.0, 494.0, 518.0, 681.0),
    5.0: (145.0, 190.0, 233.0, 399.0, 452.0, 510.0, 655.0, 706.0, 730.0),
}
# The small preset: KiTS19 in all but the grid, which holds the kidneys and little else.
_SMALL_SPACING_Z_MM = (4.0, 4.5, 5.0)
_SMALL_NUM_SLICES = (34, 40)


@dataclass(frozen=True, kw_only=True)
class CaseParameters:
    """The numbers a case is drawn to.

    Attributes:
        num_slices: slices of the scan.
        spacing_z_mm, spacing_xy_mm: between slices, and in plane on a matrix of `MATRIX` columns.
        kidney_ml: volume of both kidneys without tumour, in millilitres.
        tumour_ml: volume of all tumour, in millilitres.
        kidney_hu, tumour_hu: mean HU of each label.
        hu_min: value outside the scanner's circle, or -1024 where the scan has no such padding.
        hu_max: the brightest voxel.
        noise_hu: standard deviation of the noise in the middle of the body.
    """

    num_slices: int
    spacing_z_mm: float
    spacing_xy_mm: float
    kidney_ml: float
    tumour_ml: float
    kidney_hu: float
    tumour_hu: float
    hu_min: int
    hu_max: int
    noise_hu: float


def draw_parameters(
    *, seed: int, index: int, distribution: Distribution = "kits19", num_slices: int | None = None
) -> CaseParameters:
    """Draws the numbers of one case; nothing is rendered.

    Args:
        seed, index: the same pair gives the same case.
        distribution: `"kits19"`, or `"small"` for at most 40 thick slices.
        num_slices: forces the slice count; the spacing follows, within 0.5 to 5 mm, so that the scan keeps its
            length where it can.

    Raises:
        ValueError: an unknown distribution or less than one slice.
    """
    rng = np.random.default_rng([seed, index, 0])
    values = _draw_correlated(rng)
    if distribution == "kits19":
        spacing_z_mm, drawn_slices = _draw_grid(rng)
    elif distribution == "small":
        spacing_z_mm = float(rng.choice(_SMALL_SPACING_Z_MM))
        drawn_slices = int(rng.integers(_SMALL_NUM_SLICES[0], _SMALL_NUM_SLICES[1] + 1))
    else:
        raise ValueError(f"distribution: found {distribution!r}, expected 'kits19' or 'small'")
    if num_slices is not None:
        if num_slices < 1:
            raise ValueError(f"num_slices: found {num_slices!r}, expected at least 1")
        spacing_z_mm = float(np.clip(drawn_slices * spacing_z_mm / num_slices, *SPACING_Z_LIMITS_MM))
        drawn_slices = num_slices
    hu_mins, counts = zip(*_HU_MIN_COUNTS.items(), strict=True)
    hu_max = _interpolate_log(rng.random(), _HU_MAX_PROBABILITIES, _HU_MAX_QUANTILES)
    # Median 13 HU at 3 mm: what flat liver and muscle show in portal-phase body CT; thin slices are noisier.
    noise_hu = 13.0 * np.exp(0.3 * rng.standard_normal()) * (3.0 / max(spacing_z_mm, 1.0)) ** 0.35
    return CaseParameters(
        num_slices=drawn_slices,
        spacing_z_mm=spacing_z_mm,
        hu_min=int(rng.choice(hu_mins, p=np.array(counts) / sum(counts))),
        hu_max=round(hu_max),
        noise_hu=float(np.clip(noise_hu, 4.0, 30.0)),
        **values,
    )


def _draw_correlated(rng: np.random.Generator) -> dict[str, float]:
    names = list(_QUANTILES)
    correlation = np.eye(len(names))
    for (first, second), value in _CORRELATIONS.items():
        i, j = names.index(first), names.index(second)
        correlation[i, j] = correlation[j, i] = value
    uniform = ndtr(np.linalg.cholesky(correlation) @ rng.standard_normal(len(names)))
    return {
        name: _interpolate_log(u, _PROBABILITIES, _QUANTILES[name]) for name, u in zip(names, uniform, strict=True)
    }


def _draw_grid(rng: np.random.Generator) -> tuple[float, int]:
    spacings, counts = zip(*_SPACING_Z_COUNTS.items(), strict=True)
    spacing_z_mm = float(rng.choice(spacings, p=np.array(counts) / sum(counts)))
    quantiles = next(values for limit_mm, values in _LENGTH_QUANTILES_MM.items() if spacing_z_mm <= limit_mm)
    length_mm = _interpolate_log(rng.random(), _PROBABILITIES, quantiles)
    return spacing_z_mm, int(np.clip(round(length_mm / spacing_z_mm), *SLICE_LIMITS))


def _interpolate_log(u: float, probabilities: tuple[float, ...], quantiles: tuple[float, ...]) -> float:
    return float(np.exp(np.interp(u, probabilities, np.log(quantiles))))
