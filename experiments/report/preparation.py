"""What the two faults of the preparation do, measured case by case, without any network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faults import clipped_grey, covered_fractions, mean_of_numbers, rounded, unclipped_grey
from tqdm import tqdm

from kits_ml import scores
from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import frames, preprocessing
from kits_ml.evaluation.aggregates import summarise_values
from kits_ml.labels import KIDNEY, TUMOUR

#: What is summed up over cases.
GREY_NAMES = ("unclipped", "clipped", "black", "black_with_metal", "levels_clipped", "levels_unclipped")

#: What a mean of whole numbers in float32 may be off; far less than one voxel's share of a pixel.
ROUNDING = np.float32(1e-4)

#: A voxel of metal: the end of the 12-bit scale.
METAL_HU = 3071.0

#: Muscle: what a kidney must be told from.
MUSCLE_HU = 50.0

#: HU for which the grey value is drawn over the scan's brightest voxel: fat, muscle, enhanced kidney, bone.
TISSUES_HU = {"fat": -79.0, "muscle": MUSCLE_HU, "kidney": 180.0, "bone": 304.0}


def measure_labels(folder: Path, *, settings: PreprocessingSettings) -> dict[str, Any]:
    """What becomes of each case's labels when their numbers are averaged (mode `area`), against `nearest`.

    Of a case: `fractional`, the part of the pixels touching foreground whose value is no whole number;
    `false_kidney`, pixels that are kidney after rounding (or cutting off) though no kidney lies in them, as part of
    the true tumour pixels; `tumour_left`, tumour pixels as part of those that are mostly tumour; `tumour_dice`, Dice
    against those.

    Returns:
        Means over the patients whose slices show a tumour, with intervals; and counts.
    """
    per_case = [labels_of_case(label_map, frame) for _, label_map, frame in _cases(folder, settings)]
    shown = [one for one in per_case if one["tumour_pixels"]]
    with_kidney = [one for one in per_case if one["foreground_pixels"]]
    names = [name for name in shown[0] if name.startswith(("rounded_", "cut_", "nearest_"))]
    return {
        "num_cases": len(per_case),
        "num_with_tumour": len(shown),
        "image_size": settings.image_size,
        "fractional": summarise_values([one["fractional"] for one in with_kidney]),
        "tumour_pixels": int(sum(one["tumour_pixels"] for one in per_case)),
        "false_kidney_pixels": int(sum(one["false_kidney_pixels"] for one in per_case)),
        **{name: summarise_values([one[name] for one in shown]) for name in names},
        "by_case": [[one["tumour_pixels"], one["rounded_tumour_dice"], one["cut_tumour_dice"]] for one in shown],
    }


def labels_of_case(label_map: np.ndarray, frame: frames.Frame) -> dict[str, float]:
    """What `measure_labels` sums up, of one case; NaN where it has no tumour to compare with."""
    means, parts = mean_of_numbers(label_map, frame), covered_fractions(label_map, frame)
    mostly, touching = parts.argmax(axis=0), parts[0] < 1 - ROUNDING
    num_tumour = int((mostly == TUMOUR).sum())
    ways = {
        "rounded": rounded(means),
        "cut": (means + ROUNDING).astype(np.uint8),
        "nearest": preprocessing.prepare_labels(label_map, frame),
    }
    found: dict[str, float] = {
        "tumour_pixels": num_tumour,
        "foreground_pixels": int(touching.sum()),
        "fractional": float(np.mean(_fractional(means[touching]))) if touching.any() else np.nan,
    }
    for name, labels in ways.items():
        false_kidney = int(((labels == KIDNEY) & (parts[KIDNEY] == 0)).sum())
        tumour = labels == TUMOUR
        counts = (num_tumour, int(tumour.sum()), int((tumour & (mostly == TUMOUR)).sum()))
        found[f"{name}_false_kidney"] = false_kidney / num_tumour if num_tumour else np.nan
        found[f"{name}_tumour_left"] = counts[1] / num_tumour if num_tumour else np.nan
        found[f"{name}_tumour_dice"] = scores.dice_from_counts(*counts)
        if name == "rounded":
            found["false_kidney_pixels"] = false_kidney
    return found


def _fractional(means: np.ndarray) -> np.ndarray:
    return np.abs(means - np.rint(means)) > ROUNDING


def measure_grey(folders: Sequence[tuple[str, Path]], *, settings: PreprocessingSettings) -> dict[str, Any]:
    """Which grey value each case's kidney gets, with and without clipping before gamma.

    Args:
        folders: name and folder of the cases.
        settings: window and gamma.

    Returns:
        `cases`: of each, its extremes, mean HU of its kidney, the grey value of that HU either way, and `black`, the
        part of the kidney's voxels that a PNG shows black without clipping; `with_metal`, the same of the case with
        one voxel of metal more; `levels`, how many of a PNG's 255 grey levels lie between muscle and kidney: clipped,
        and unclipped with the scan's whole range spread over the PNG. `curves`: the grey value of some tissues over
        the highest HU.
    """
    rows = []
    for source, folder in folders:
        for name, image, label_map, frame in _named_cases(folder, settings):
            rows.append({"source": source, "case": name, **_grey_of_case(image, label_map, frame, settings)})
    highest = np.geomspace(304, METAL_HU, 40)
    curves = {
        tissue: [
            float(unclipped_grey(np.array(hu), lowest_hu=-1024, highest_hu=float(one), settings=settings))
            for one in highest
        ]
        for tissue, hu in TISSUES_HU.items()
    }
    clipped = {tissue: float(clipped_grey(np.array(hu), settings=settings)) for tissue, hu in TISSUES_HU.items()}
    kinds = sorted({row["source"] for row in rows})
    return {
        "cases": rows,
        "curves": {"highest_hu": highest.tolist(), "unclipped": curves, "clipped": clipped, "lowest_hu": -1024},
        "summary": {
            kind: {
                name: summarise_values([row[name] for row in rows if row["source"] == kind]) for name in GREY_NAMES
            }
            for kind in kinds
        },
    }


def _grey_of_case(
    image: np.ndarray, label_map: np.ndarray, frame: frames.Frame, settings: PreprocessingSettings
) -> dict[str, float]:
    kidney = image[label_map == KIDNEY]
    mean_hu = float(kidney.mean())
    extremes = {"lowest_hu": frame.lowest_hu, "highest_hu": frame.highest_hu}
    metal = {**extremes, "highest_hu": METAL_HU}

    def grey(hu: np.ndarray, ends: dict[str, float]) -> np.ndarray:
        return unclipped_grey(hu, **ends, settings=settings)

    muscle, mean = np.array(MUSCLE_HU), np.array(mean_hu)
    width = settings.window_max_hu - settings.window_min_hu
    spread = (frame.highest_hu - frame.lowest_hu) / width  # from the blackest to the whitest voxel
    clipped = float(clipped_grey(mean, settings=settings))
    return {
        **extremes,
        "kidney_hu": mean_hu,
        "levels_clipped": 255 * (clipped - float(clipped_grey(muscle, settings=settings))),
        "levels_unclipped": 255 * float(grey(mean, extremes) - grey(muscle, extremes)) / spread,
        "unclipped": float(grey(mean, extremes)),
        "with_metal": float(grey(mean, metal)),
        "clipped": clipped,
        "black": float(np.mean(grey(kidney, extremes) <= 0)),
        "black_with_metal": float(np.mean(grey(kidney, metal) <= 0)),
    }


def _named_cases(
    folder: Path, settings: PreprocessingSettings
) -> Iterator[tuple[str, np.ndarray, np.ndarray, frames.Frame]]:
    for case in tqdm(case_files.find_cases(folder), desc=folder.name, unit="case"):
        image, label_map = case_files.load_case(case)
        yield case.name, image.array, label_map.array, frames.find_frame(image.array, settings)


def _cases(folder: Path, settings: PreprocessingSettings) -> Iterator[tuple[np.ndarray, np.ndarray, frames.Frame]]:
    for _, image, label_map, frame in _named_cases(folder, settings):
        yield image, label_map, frame
