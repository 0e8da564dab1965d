"""The chapters on trainings: the report's own, slices shuffled over patients, faults mended; and what to do instead.

Every number comes from a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pictures
from words import (
    TITLES,
    NamedPicture,
    Part,
    Result,
    Results,
    budget,
    difference,
    interval,
    missing,
    number,
    percent,
    told,
)

from kits_ml.config import TrainSettings
from kits_ml.page import Table, Text
from kits_ml.trust import as_reported

#: The report's metric, as a run logs it.
TRAINING_METRIC, VALIDATION_METRIC = as_reported("mean_iou"), as_reported("val_mean_iou")

#: What the report says of itself.
REPORT_SAYS: Mapping[str, str] = {
    "cases": "48 of KiTS19: at most 110 slices, HU from −1024 to 1679",
    "slices to train on": "2,500",
    "slices to validate on": "1,100",
    "batch": "50 (validation 22)",
    "steps": "5 epochs of 50",
    "optimiser": "Adam, learning rate not stated",
    "loss": "categorical cross-entropy",
    "network": "U-Net, filters not stated",
    "split": "not stated",
    "mean IoU": "0.989",
}

SAME_NETWORK = "Both are readings of one and the same network."

OTHER_EPOCH = "The weights that are kept are those of an earlier epoch; that is not why the two differ."

PRIVATE = "The segmentation shows a real patient, so it is only in the page of the output folder."

FAR_APART = (
    "Neighbouring slices exist in the phantom only; the real patients here have two slices at most, far apart, so "
    "little can leak."
)


def report(results: Results, *, predicted: Mapping[str, bytes], are_real: bool) -> list[Part]:
    """The report done again, and its three figures.

    Args:
        results: of the stages.
        predicted: pictures of predicted segmentations by name, PNG.
        are_real: whether they show real patients.
    """
    exact, prepared, readings = (results.get(name) for name in ("exact", "prepare", "readings"))
    if not (exact and prepared and readings):
        return [missing("The report, done again", "readings")]
    history = exact["history"]
    curve = NamedPicture(
        name="learning_curve",
        title="",
        image=pictures.learning_curve(exact, readings["theory"]["reported"]),
        caption="The accuracy curve: the report's metric on softmax as it is (orange) and, of the same training, the "
        "scores of whole patients. What is not shown and not predicted counts 1 there, as in KiTS, so a model that "
        "finds nothing earns the share of validation patients without tumour.",
        alt=told(
            "last epoch",
            {
                "MeanIoU in validation": history[VALIDATION_METRIC][-1],
                "kidney Dice": history["val_dice_kidney"][-1],
                "tumour Dice": history["val_dice_tumour"][-1],
            },
        ),
    )
    parts: list[Part] = [
        Text(title="The report, done again", paragraphs=_report_words(exact, prepared, readings, are_real=are_real)),
        curve,
        Table(
            title="",
            header=["", "the report says", "here"],
            rows=_beside(exact, prepared, readings),
            of_words=True,
        ),
    ]
    for name, image in predicted.items():
        parts.append(
            NamedPicture(
                name=name,
                title="",
                image=image,
                media_type="image/png",
                caption=f"A predicted segmentation, the {name.replace('_', ' ')}: truth solid, prediction dashed; "
                "kidney green, tumour orange.",
                alt="CT slices with outlines of the true and the predicted kidney and tumour.",
                private=are_real,
            )
        )
    return parts


def _report_words(
    exact: Mapping[str, Any], prepared: Mapping[str, Any], readings: Mapping[str, Any], *, are_real: bool
) -> list[str]:
    history, test = exact["history"], exact["summaries"]["test"]["regions"]
    num_slices, minutes = prepared["parts"]["train"]["num_slices"], exact["training_minutes"]
    kidney, tumour = (test[region]["dice"] for region in ("kidney", "tumour"))
    hard = readings["ways"]["trained, hardened"]["as_reported"]
    is_last = round(exact["best_epoch"]) == len(history[VALIDATION_METRIC]) - 1
    return [
        f"The training ran as the report says it, on the slices that the data has: "
        f"{exact['images_seen']:,} images drawn from "
        f"{num_slices:,} slices, {exact['images_seen'] / num_slices:.0f} passes over them, {minutes:.0f} minutes in "
        f"{exact['device'].get('precision_used', 'unknown precision')}. Where the report is silent, the preset "
        "experiments/presets/report.yaml takes the package's defaults: "
        f"{_num_filters(exact)} filters, learning rate {history['learning_rate'][-1]:g}, a split by patient. "
        "Where its words cannot be followed without damage, the preset follows sense (labels by nearest, intensities "
        "clipped); what the literal words cost stands in the chapters below.",
        "The report shows three figures: an accuracy curve, a table with the mean IoU, and a predicted segmentation. "
        "Of the report's own we have the numbers and not the pictures; ours follow."
        + (f" {PRIVATE}" if are_real else ""),
        f"On softmax as it is, MeanIoU reads {number(history[VALIDATION_METRIC][-1])} after the last epoch, and not "
        f"{readings['theory']['reported']}. Made hard first, the network reads {number(hard)} on the test patients. "
        f"{SAME_NETWORK if is_last else OTHER_EPOCH} The next chapter says why they differ.",
        f"On the {readings['num_cases']} test patients, on the scans' own grids, the trained network has a kidney "
        f"Dice of {interval(kidney)} and a tumour Dice of {interval(tumour)}. Where the slices show a tumour, its "
        f"Dice is {interval(tumour['with_region'])}: most of that {number(tumour['mean'])} are patients without "
        "tumour, for whom an empty prediction counts 1. (The "
        "tables below count only patients whose slices show the region, on the prepared slices: there the kidney has "
        f"{number(readings['ways']['trained']['dice_kidney']['mean'])}.) The weights are those of epoch "
        f"{exact['best_epoch'] + 1:.0f}, by the validation patients' foreground IoU.",
    ]


def leakage(results: Results) -> list[Part]:
    """(b) Slices shuffled over patients."""
    found = {TITLES[name]: results[f"leakage_{name}"] for name in TITLES if f"leakage_{name}" in results}
    if not found:
        return [missing("Slices shuffled over patients", "leakage_phantom")]
    rows, words = [], []
    for source, one in found.items():
        for region in ("kidney", "tumour"):
            dice = one[f"dice_{region}"]
            rows.append([f"{source}, {region}", *(interval(dice[key]) for key in ("shuffled", "new", "leak"))])
        kidney, tumour = (one[f"dice_{region}"]["leak"] for region in ("kidney", "tumour"))
        words.append(
            f"What the shuffled split reports too much on the {source}: for the kidney {difference(kidney)}; for "
            f"the tumour {difference(tumour)}. {one['num_cases']} patients; {budget(one['runs']['A']['sizes'])}."
        )
    return [
        Text(
            title="Slices shuffled over patients",
            paragraphs=[
                "The neighbour of a CT slice looks like the slice. If slices are shuffled before they are split, the "
                "network is validated on patients that it has seen, a few millimetres away. To measure what that is "
                "worth, the patients with several slices were drawn into two groups, and a network was trained for "
                "each group on half of each patient's slices (patients with one slice are in both trainings). The "
                "other half of the slices is what a shuffled split would validate on. Its patients are known to one "
                "network and new to the other, so the two scores are of the same slices.",
                *words,
            ],
        ),
        Table(
            title="",
            header=["Dice per patient", "shuffled split reports", "new patients", "difference"],
            rows=rows,
            note="95 % bootstrap intervals over the patients whose slices show the region. One network a group: what "
            "the seed does is not in the intervals." + (f" {FAR_APART}" if TITLES["thin"] in found else ""),
        ),
        NamedPicture(
            name="leakage",
            title="",
            image=pictures.leakage(found),
            caption="The same slices, scored by a network that knows the patient and by one that does not. "
            + "; ".join(f"{source}: {budget(one['runs']['A']['sizes'])}" for source, one in found.items())
            + ".",
            alt=told("leak", {row[0]: one for row, one in zip(rows, _leaks(found), strict=True)}),
        ),
    ]


def instead(results: Results) -> list[Part]:
    """What to do instead."""
    points = [
        "Score whole patients that training has never seen, and give an interval over patients.",
        "Leave the background out of the score: kidney and tumour each by itself, from the most probable class. In "
        "Keras OneHotMeanIoU takes the argmax; MeanIoU does not.",
        "Before you believe a metric, feed it predictions whose score you know: nothing, everything, perfect, and "
        "perfect but unsure. kits-ml selftest does it for the metrics here and for any Keras metric.",
        "Put the score of an empty prediction beside yours. If it is close, you have nothing.",
        "Split by patient. A slice is not a patient.",
        "Never average label numbers. Resize each label's mask by itself and take the largest, or take nearest and "
        "undo its shift. Look at the values that are in the files.",
        "Clip to the window before anything that depends on the extremes.",
        "Choose weights by the honest score, and touch the test patients once.",
        "Look at pictures, the worst case first. The report did, and its pictures were right.",
    ]
    return [Text(title="What to do instead", paragraphs=["None of this takes long."], points=points)]


def cannot_be_known(results: Results, *, are_real: bool) -> list[str]:
    """What stands beside the verdict; `are_real`: the exact training saw real slices."""
    found = [
        "The report's code is not there. That it used MeanIoU with one-hot labels is the likeliest reading of its "
        "words, and not proven.",
        "Whether 0.989 was an empty prediction or a mediocre one cannot be known: both lie on the same curve.",
    ]
    if readings := results.get("readings"):
        theory, softmax = readings["theory"], readings["ways"]["trained"]["as_reported"]
        found.append(
            f"Our training did not give {theory['reported']}: its softmax as it is reads {number(softmax)}. Plain "
            "pixel accuracy would explain the number as well: that of an empty prediction is 1 less the foreground's "
            "part."
        )
        found.append(
            f"To read {theory['reported']} from softmax as it is, at least "
            f"{percent(theory['saturated_of_reported'])} of the pixels must have had a probability of exactly 1. A "
            "network that says background everywhere can get there, and so does one whose output was made hard "
            "before."
        )
    if are_real:
        found.append(
            "The real data here are single slices of many patients, not the report's 48 whole scans: numbers of "
            "slices, "
            "foreground and passes differ, and pixels outside the window are lost."
        )
    return found


def _beside(exact: Result, prepared: Result, readings: Result) -> list[list[str]]:
    parts, history = prepared["parts"], exact["history"]
    steps = len(history["loss"])
    here = {
        "cases": f"{prepared['num_kept']} of {prepared['num_kept'] + prepared['num_left_out']} by the same rule",
        "slices to train on": f"{parts['train']['num_slices']:,} of {parts['train']['num_cases']} patients",
        "slices to validate on": f"{parts['validation']['num_slices']:,} of {parts['validation']['num_cases']} "
        "patients",
        "batch": f"{exact['settings']['batch_size']}",
        "steps": f"{steps} epochs of {exact['settings']['steps_per_epoch']}",
        "optimiser": f"Adam, learning rate {history['learning_rate'][-1]:g}",
        "loss": "categorical cross-entropy",
        "network": f"U-Net, {_num_filters(exact)} filters",
        "split": "by patient",
        "mean IoU": f"MeanIoU of the last epoch: training {number(history[TRAINING_METRIC][-1])}, validation "
        f"{number(history[VALIDATION_METRIC][-1])}; test, made hard: "
        f"{number(readings['ways']['trained, hardened']['as_reported'])}; honest mean IoU, test: "
        f"{number(readings['ways']['trained']['mean_iou_pooled'])}",
    }
    return [[name, said, here[name]] for name, said in REPORT_SAYS.items()]


def _num_filters(exact: Result) -> int:
    return exact["settings"].get("base_filters", TrainSettings.base_filters)


def _leaks(found: Results) -> list[float]:
    return [one[f"dice_{region}"]["leak"]["mean"] for one in found.values() for region in ("kidney", "tumour")]
