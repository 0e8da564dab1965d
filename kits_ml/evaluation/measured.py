"""All that is measured of one case: its scores, and what the summary needs beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kits_ml.data.contrast import mean_kidney_hu
from kits_ml.evaluation.calibration import Calibration
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import confusion_of_volumes, score_case, score_missing


def measure_case(
    case: str,
    *,
    label_map_true: np.ndarray,
    label_map_pred: np.ndarray | None,
    spacing_mm: Sequence[float],
    image: np.ndarray | None = None,
    calibration: Calibration | None = None,
    surfaces: bool = True,
) -> CaseScores:
    """Measures one case on its own grid.

    Args:
        case: its name.
        label_map_true: reference, `(slices, rows, columns)` with values 0, 1, 2.
        label_map_pred: the same for the prediction; None where there is none, which scores worst. Its voxels then
            count as called background.
        spacing_mm: the reference's distance between slices, rows and columns.
        image: the scan in HU, where it is there.
        calibration: of the probabilities, where there are some.
        surfaces: whether to measure surfaces too.

    Raises:
        InputError: see `scores.score_case`.
    """
    spacing_mm = tuple(spacing_mm)
    if label_map_pred is None:
        regions = score_missing(label_map_true, spacing_mm=spacing_mm, surfaces=surfaces)
        matrix = confusion_of_volumes(label_map_true, np.broadcast_to(np.uint8(0), label_map_true.shape))
    else:
        regions = score_case(label_map_true, label_map_pred, spacing_mm=spacing_mm, surfaces=surfaces)
        matrix = confusion_of_volumes(label_map_true, label_map_pred)
    return CaseScores(
        case=case,
        regions=regions,
        missing_prediction=label_map_pred is None,
        slice_spacing_mm=spacing_mm[0],
        confusion=tuple(map(tuple, matrix.tolist())),
        kidney_hu=math.nan if image is None else mean_kidney_hu(image, label_map_true),
        calibration=calibration,
    )
