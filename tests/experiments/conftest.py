"""Scripts of an experiment import each other by their plain names; and results as the report's stages leave them."""

import sys
from pathlib import Path

import pytest

from kits_ml import files
from kits_ml.evaluation.misreading import (
    misread_iou_of_background,
    misread_iou_of_pixel_error,
    pixel_error_of_misread_iou,
    saturated_part_behind_misread_iou,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

sys.path += [str(EXPERIMENTS / "report"), str(EXPERIMENTS / "benchmarks")]


def _summary(mean: float | None, *, num_cases: int = 6, half: float = 0.05) -> dict:
    """As `aggregates.summarise_values` gives it, NaN as null."""
    low, high = (None, None) if mean is None else (mean - half, mean + half)
    counts = {"num_cases": num_cases, "num_undefined": 0}
    return {"mean": mean, "median": mean, "ci_low": low, "ci_high": high, **counts}


def _readings() -> dict:
    fraction = 0.02
    ways = {
        "nothing": (misread_iou_of_background(fraction), fraction, (1 - fraction) / 3, 0.0, 0.25),
        "nothing, p = 0.987": (1 / 3, fraction, (1 - fraction) / 3, 0.0, 0.25),
        "trained": (0.4321, 0.0123, 0.55, 0.61, 0.27),
        "trained, hardened": (misread_iou_of_pixel_error(0.0123), 0.0123, 0.55, 0.61, 0.27),
        "perfect": (1.0, 0.0, 1.0, 1.0, 1.0),
        "perfect, p = 0.987": (1 / 3, 0.0, 1.0, 1.0, 1.0),
    }
    return {
        "num_cases": 6,
        "foreground_fraction": fraction,
        "theory": {
            "reported": 0.989,
            "pixel_error_of_reported": pixel_error_of_misread_iou(0.989),
            "saturated_of_reported": saturated_part_behind_misread_iou(0.989),
        },
        "ways": {
            name: {
                "as_reported": read,
                "by_theory": read,
                "saturated_fraction": 0.2,
                "pixel_error": error,
                "mean_iou_pooled": pooled,
                "dice_kidney": _summary(kidney),
                "dice_tumour": _summary(tumour),
            }
            for name, (read, error, pooled, kidney, tumour) in ways.items()
        },
    }


def _exact() -> dict:
    region = {"dice": {**_summary(0.6), "with_region": _summary(0.12)}}
    names = ("as_reported/mean_iou", "as_reported/val_mean_iou", "val_dice_kidney", "val_dice_tumour")
    history = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in (*names, "val_foreground_iou", "loss", "learning_rate")}
    return {
        "history": history,
        "images_seen": 12_500,
        "training_minutes": 25.4,
        "best_epoch": 3.0,
        "device": {"precision_used": "bfloat16"},
        "summaries": {"test": {"regions": {"kidney": region, "tumour": region}}},
    }


def _leak() -> dict:
    dice = {"shuffled": _summary(0.8), "new": _summary(0.7), "leak": _summary(0.1)}
    sizes = {"train": {"num_slices": 100, "num_cases": 12}} | SIZES
    runs = {"A": {"sizes": sizes}}
    return {"num_cases": 24, "dice_kidney": dice, "dice_tumour": {**dice, "leak": _summary(0.01)}, "runs": runs}


SIZES = {"image_size": 96, "base_filters": 8, "steps": 400, "batch_size": 8, "num_test": 8}


def _mending(number: int) -> dict:
    reported = {"softmax": 0.5, "hardened": 0.97, "pixel_error": 0.02, "saturated_fraction": 0.1}
    regions, dice = ("dice_kidney", "dice_tumour"), 0.1 * number
    said = {
        "as_reported": reported,
        "test": {name: _summary(dice) for name in regions},
        "test_by_case": {"case_00000": dict.fromkeys(regions, dice), "case_00001": dict.fromkeys(regions)},
    }
    course = {f"val_{name}": [0.0, 0.5] for name in regions}
    return {
        "last": said,
        "best": said,
        "best_epoch": 1,
        "course": course,
        "sizes": {"train": {"num_slices": 100, "num_cases": 13}} | SIZES,
    }


def _parts() -> dict:
    return {part: {"num_slices": 1234, "num_cases": 20} for part in ("train", "validation", "test")}


def _grey() -> dict:
    names = ("unclipped", "clipped", "black", "black_with_metal", "levels_clipped", "levels_unclipped")
    row = {"highest_hu": 1023.0, "unclipped": -0.2, "with_metal": -0.7, "clipped": 0.56, "black": 0.9}
    rows = [{"source": source, **row, "black_with_metal": 1.0} for source in ("phantom", "real")]
    curve = {"highest_hu": [304.0, 3071.0], "unclipped": {"kidney": [0.53, -0.76]}, "clipped": {"kidney": 0.556}}
    summary = {name: _summary(0.4) for name in names}
    return {"cases": rows, "curves": curve, "summary": {"phantom": summary, "real": summary}}


def _labels() -> dict:
    names = [f"{way}_{what}" for way in ("rounded", "cut", "nearest") for what in LABEL_MEASURES]
    return {
        **{name: _summary(0.9) for name in names},
        "fractional": _summary(0.12),
        "num_with_tumour": 3,
        "image_size": 256,
        "tumour_pixels": 5000,
        "false_kidney_pixels": 321,
        "by_case": [[100, 0.9, 0.8], [1000, 0.95, 0.9], [10_000, 0.99, 0.98]],
    }


LABEL_MEASURES = ("false_kidney", "tumour_left", "tumour_dice")


@pytest.fixture(scope="session")
def results() -> dict:
    """What all stages may find, small and made by hand, by stage."""
    rule = {"num_cases": 210, "num_kept": 49, "foreground_fraction": 0.0101}
    found = {
        "prepare": {"num_kept": 60, "num_left_out": 5, "parts": _parts()},
        "exact": _exact(),
        "readings": _readings(),
        "rule": {**rule, "nothing_reads": 0.985, "nothing_is_worth": 0.33},
        "labels": _labels(),
        "grey": _grey(),
        "leakage_phantom": _leak(),
        "leakage_thin": _leak(),
    }
    from steps import TRAINED_STEPS  # of the experiment

    steps = enumerate(step.name for step in TRAINED_STEPS)
    return found | {f"mending_phantom_{name}": _mending(number) for number, name in steps}


@pytest.fixture(scope="session")
def stage_files(results, tmp_path_factory) -> Path:
    """The folder of files that the stages would leave."""
    folder = tmp_path_factory.mktemp("report") / "stages"
    for name, result in results.items():
        settings = {"batch_size": 50, "steps_per_epoch": 50}
        made = {"settings": settings, "seconds": 12.0, "machine": "a processor", "code": "abc"}
        record = {"stage": name, "identity": "0" * 16, **made, "result": result}
        files.write_json(folder / f"{name}.json", record)
    return folder
