"""How long scoring one whole case takes, and how much memory.

    KITS_ML_REAL_DATA=<folder> python experiments/benchmarks/scores.py

scores the label map of `ircadb/case_ircadb01` (129x512x512; without the folder, two ellipsoids of the same size)
against itself shifted by one slice, three rows and three columns. Expected: under 10 s.
"""

import os
import resource
import time
from pathlib import Path

import numpy as np

from kits_ml.data import volumes
from kits_ml.scores import composite_dice, score_case

SHIFT = (1, 3, 3)
SPACING_MM = (1.6, 0.57, 0.57)


def _reference() -> tuple[np.ndarray, tuple[float, float, float], str]:
    path = Path(os.environ.get("KITS_ML_REAL_DATA", "")) / "ircadb/case_ircadb01/segmentation.nii.gz"
    if path.is_file():
        volume = volumes.read_label_map(path)
        return volume.array, volume.spacing_mm, str(path)
    slices, rows, columns = np.ogrid[:129, :512, :512]
    label_map = np.zeros((129, 512, 512), np.uint8)
    for centre in (170, 340):
        label_map[((slices - 60) / 35) ** 2 + ((rows - 300) / 55) ** 2 + ((columns - centre) / 50) ** 2 < 1] = 1
    return label_map, SPACING_MM, "ellipsoids"


def main() -> None:
    true, spacing_mm, source = _reference()
    true = true.copy()
    kidney = np.argwhere(true == 1)
    offsets_mm = (kidney - kidney[len(kidney) // 3]) * np.array(spacing_mm)
    true[tuple(kidney[(offsets_mm**2).sum(axis=1) < 15**2].T)] = 2  # the case has no tumour: part of a kidney is one
    pred = np.roll(true, SHIFT, axis=(0, 1, 2))
    print(f"{source}: {'x'.join(map(str, true.shape))}, {(true > 0).sum()} voxels of kidney")
    for surfaces in (False, True):
        start = time.perf_counter()
        scores = score_case(true, pred, spacing_mm=spacing_mm, surfaces=surfaces)
        seconds = time.perf_counter() - start
        print(f"surfaces={surfaces}: {seconds:.2f} s, composite Dice {composite_dice(scores):.4f}")
    for region, found in scores.items():
        print(f"  {region}: surface Dice {found.surface_dice:.4f}, HD95 {found.hd95_mm:.2f} mm")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
