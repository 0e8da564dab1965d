"""How long scoring one whole case takes, and how much memory.

    KITS_ML_REAL_DATA=<folder> python experiments/benchmarks/scores.py

scores the label map of `ircadb/case_ircadb01` (129x512x512; without the folder, two ellipsoids of the same size)
against itself shifted by one slice, three rows and three columns, and the same map stretched to 1,059 slices, as many
as the longest case of KiTS19 has. Counts the calibration of a softmax over all of it too. Expected for 129 slices:
under 10 s. Memory is what is allocated on top of the two label maps. Result: scores.md.
"""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kits_ml.data import volumes
from kits_ml.evaluation.calibration import CalibrationCounter
from kits_ml.evaluation.measured import measure_case
from kits_ml.scores import score_case

SHIFT = (1, 3, 3)
SPACING_MM = (1.6, 0.57, 0.57)
MOST_SLICES = 1059


def _reference() -> tuple[np.ndarray, tuple[float, float, float], str]:
    path = Path(os.environ.get("KITS_ML_REAL_DATA", "")) / "ircadb/case_ircadb01/segmentation.nii.gz"
    if path.is_file():
        volume = volumes.read_label_map(path)
        return volume.array, volume.spacing_mm, "case_ircadb01"
    slices, rows, columns = np.ogrid[:129, :512, :512]
    label_map = np.zeros((129, 512, 512), np.uint8)
    for centre in (170, 340):
        label_map[((slices - 60) / 35) ** 2 + ((rows - 300) / 55) ** 2 + ((columns - centre) / 50) ** 2 < 1] = 1
    return label_map, SPACING_MM, "ellipsoids"


def _with_tumour(label_map: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The case has no tumour: a ball of 15 mm in a kidney becomes one."""
    label_map = label_map.copy()
    kidney = np.argwhere(label_map == 1)
    offsets_mm = (kidney - kidney[len(kidney) // 3]) * np.array(spacing_mm)
    label_map[tuple(kidney[(offsets_mm**2).sum(axis=1) < 15**2].T)] = 2
    return label_map


def _calibrate(label_map: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    """Counts a softmax over whole slices, the same for each slice."""
    random = np.random.default_rng(0).random((3, *label_map.shape[1:]), np.float32)
    probabilities = random / random.sum(axis=0)
    counter = CalibrationCounter(label_map, spacing_mm=spacing_mm)
    for index in range(len(label_map)):
        counter(index, (slice(0, label_map.shape[1]), slice(0, label_map.shape[2])), probabilities)
    counter.result().ece()


def _report(name: str, run: Callable[[], object]) -> None:
    started, started_cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    tracemalloc.start()
    run()
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"  {name:<44}{seconds:>7.2f} s{cpu_seconds:>7.2f} CPU s{peak_mib:>6.0f} MiB", flush=True)


def main() -> None:
    found, spacing_mm, source = _reference()
    short = _with_tumour(found, spacing_mm)
    stretched_mm = (spacing_mm[0] * len(short) / MOST_SLICES, *spacing_mm[1:])
    for spacing in (spacing_mm, stretched_mm):
        true = short if spacing is spacing_mm else short[np.arange(MOST_SLICES) * len(short) // MOST_SLICES]
        pred = np.roll(true, SHIFT, axis=(0, 1, 2))
        shape = "x".join(map(str, true.shape))
        print(f"{source}, {shape}, {(true > 0).sum():,} voxels labelled, {true.nbytes / 2**20:.0f} MiB a label map")
        both = {"label_map_true": true, "label_map_pred": pred, "spacing_mm": spacing}
        _report("overlap alone", lambda a=true, b=pred, mm=spacing: score_case(a, b, spacing_mm=mm, surfaces=False))
        _report("all of a case: surfaces, lesions, confusion", lambda given=both: measure_case("case", **given))
        _report("calibration", lambda a=true, mm=spacing: _calibrate(a, mm))


if __name__ == "__main__":
    main()
