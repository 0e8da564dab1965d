"""How much contrast agent a kidney holds: what a model that learned from contrast-enhanced scans stumbles over.

KiTS does not say in which phase its scans were taken, so this is measured: the mean HU of the labelled kidney
without its tumour. Without agent, kidney tissue lies at 20 to 45 HU; in the corticomedullary and nephrographic phases
the whole of it usually lies beyond 120. Between them lie early, late and weak enhancement. The mean tells how much
agent there is, not which phase it is. The kidneys of KiTS19 have 35 to 222 HU, half of them above 108.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kits_ml.labels import KIDNEY

#: Mean HU of the kidney: name and upper bound (included).
CONTRAST_CLASSES: Mapping[str, float] = {"unenhanced": 60.0, "weak": 120.0, "strong": math.inf}


def mean_kidney_hu(image: np.ndarray, label_map: np.ndarray) -> float:
    """Mean HU of kidney tissue, the tumour left out; NaN where there is none.

    Args:
        image: `(slices, rows, columns)` in HU.
        label_map: the same shape, values 0, 1, 2.
    """
    total, num_voxels = 0.0, 0
    for hu, labels in zip(image, label_map, strict=True):  # slice by slice: no second volume in memory
        kidney = hu[labels == KIDNEY]
        total += float(kidney.sum(dtype=np.float64))
        num_voxels += kidney.size
    return total / num_voxels if num_voxels else math.nan


def contrast_class(kidney_hu: float) -> str:
    """The class of a mean HU (`CONTRAST_CLASSES`), or `"unknown"` for NaN: no image, or no kidney."""
    return next((name for name, highest in CONTRAST_CLASSES.items() if kidney_hu <= highest), "unknown")
