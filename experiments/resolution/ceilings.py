"""What a perfect network could score at each resolution of the prepared slices, on real slices.

    python experiments/resolution/ceilings.py --data $KITS_ML_REAL_DATA/kits-thin

Each case's labels are prepared as for training and put back on the scan's grid as predictions are, with nothing lost
but by the resolution. The table of README.md and the picture are written anew.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from kits_ml import files, scores
from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, frames, preprocessing
from kits_ml.labels import NUM_CLASSES, REGIONS

SIZES = (64, 96, 128, 192, 256, 512)
HERE = Path(__file__).parent


class Ceiling(NamedTuple):
    """The Dice of perfect labels in one patient, of a region that the reference shows."""

    image_size: int
    region: str
    dice: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    found = [
        one for case in tqdm(cases.find_cases(parser.parse_args().data), unit="case") for one in ceilings_of(case)
    ]
    write_table(found)
    draw(found)


def ceilings_of(case: cases.Case) -> Iterator[Ceiling]:
    """Prepares and restores one case's labels at every size."""
    image, label_map = cases.load_case(case)
    for size in SIZES:
        frame = frames.find_frame(image.array, PreprocessingSettings(image_size=size), spacing_mm=image.spacing_mm)
        labels = preprocessing.prepare_labels(label_map.array, frame)
        restored = preprocessing.restore_labels(np.eye(NUM_CLASSES, dtype=np.float32)[labels], frame)
        matrix = scores.confusion_matrix(label_map.array, restored)
        for region in REGIONS:
            counts = scores.region_counts(matrix, region)
            if counts[0]:
                yield Ceiling(size, region, scores.dice_from_counts(*counts))


def of(found: list[Ceiling], size: int, region: str) -> list[float]:
    return [one.dice for one in found if (one.image_size, one.region) == (size, region)]


def write_table(found: list[Ceiling]) -> None:
    numbers = ", ".join(f"{region} {len(of(found, SIZES[0], region))}" for region in REGIONS)
    lines = [
        f"Patients whose slices show it: {numbers}. Mean Dice, and that of the patient in twenty who has it worst:",
        "",
        "| rows and columns | " + " | ".join(f"{region} | one in twenty" for region in REGIONS) + " |",
        "|--:|" + "--:|--:|" * len(REGIONS),
    ]
    for size in SIZES:
        cells = [
            f"{statistics.fmean(dice):.3f} | {np.percentile(dice, 5):.3f}"
            for dice in (of(found, size, region) for region in REGIONS)
        ]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    files.write_part(HERE / "README.md", "table", "\n".join(lines))


def draw(found: list[Ceiling]) -> None:
    """A box a size and region."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, region in zip(figure.subplots(1, len(REGIONS), sharey=True), REGIONS, strict=True):
        axes.boxplot(
            [of(found, size, region) for size in SIZES], tick_labels=[str(size) for size in SIZES], whis=(5, 95)
        )
        axes.set_title(region)
        axes.set_xlabel("rows and columns of a prepared slice")
        axes.set_ylim(0.6, 1.005)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("Dice of perfect labels, a patient")
    figure.savefig(HERE / "ceilings.png", dpi=110)


if __name__ == "__main__":
    main()
