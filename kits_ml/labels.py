"""Label values, their names and colours, and the regions that are scored."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

BACKGROUND, KIDNEY, TUMOUR = 0, 1, 2
NUM_CLASSES = 3

LABEL_NAMES: Mapping[int, str] = MappingProxyType({BACKGROUND: "background", KIDNEY: "kidney", TUMOUR: "tumour"})

#: RGB in [0, 255], as drawn in overlays. Chosen to differ for colour-blind readers too.
LABEL_COLOURS: Mapping[int, tuple[int, int, int]] = MappingProxyType(
    {BACKGROUND: (0, 0, 0), KIDNEY: (0, 158, 115), TUMOUR: (213, 94, 0)}
)

#: KiTS21 and KiTS23 mark cysts as 3; KiTS19, and so this package, counts a cyst as kidney.
KITS23_CYST = 3

#: What is scored, as KiTS19 scores it: the kidney includes its tumour.
REGIONS: Mapping[str, tuple[int, ...]] = MappingProxyType({"kidney": (KIDNEY, TUMOUR), "tumour": (TUMOUR,)})


def region_mask(label_map: np.ndarray, region: str) -> np.ndarray:
    """Boolean mask of a scored region.

    Args:
        label_map: integer array of any shape with values 0, 1, 2.
        region: a key of `REGIONS`.

    Returns:
        Boolean array of the same shape.
    """
    first, *others = REGIONS[region]
    mask = label_map == first
    for label in others:  # np.isin would take eight bytes a voxel
        mask |= label_map == label
    return mask


def region_volumes_ml(label_map: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Volume of each scored region, millilitres; the voxels are counted slice by slice.

    Args:
        label_map: `(slices, rows, columns)` with values 0, 1, 2; uint8.
        spacing_mm: along the three axes.
    """
    voxel_ml = math.prod(spacing_mm) / 1000
    num_voxels = sum(np.bincount(one.ravel(), minlength=NUM_CLASSES) for one in label_map)
    return {region: int(num_voxels[list(members)].sum()) * voxel_ml for region, members in REGIONS.items()}
