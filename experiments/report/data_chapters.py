"""The chapters on the metric and on the data: results of stages in; words, tables and pictures out.

Every number comes from a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pictures
from words import NamedPicture, Part, Results, interval, missing, num_shown, number, percent, told

from kits_ml.data.selection import PRESETS
from kits_ml.page import Table, Text


def metric(results: Results) -> list[Part]:
    """(a) What the metric does."""
    found = results.get("readings")
    if not found:
        return [missing("What the metric reads", "readings")]
    ways, theory, trained = found["ways"], found["theory"], found["ways"]["trained"]
    rows = [
        [
            name,
            number(one["as_reported"], 4),
            number(one["by_theory"], 4),
            number(one["mean_iou_pooled"], 4),
            interval(one["dice_kidney"]),
            interval(one["dice_tumour"]),
        ]
        for name, one in ways.items()
    ]
    rule = results.get("rule")
    return [
        Text(title="What the metric reads", paragraphs=_metric_words(found, rule)),
        Table(
            title="",
            header=["prediction", "MeanIoU", "closed form", "honest mean IoU", "kidney Dice", "tumour Dice"],
            rows=rows,
            note=f"The same {found['num_cases']} test patients in every row, on prepared slices. Honest mean IoU: "
            "argmax, three labels, pixels of all patients pooled. Dice: mean with 95 % bootstrap interval over the "
            f"patients whose slices show the region, {num_shown(trained['dice_kidney'])} for the kidney (tumour "
            f"included) and {num_shown(trained['dice_tumour'])} for the tumour.",
        ),
        NamedPicture(
            name="ways",
            title="",
            image=pictures.ways(found),
            caption="Six predictions, four scores. Only the honest ones put the perfect prediction on top both "
            "times.",
            alt=told("reading of MeanIoU", {name: one["as_reported"] for name, one in ways.items()}),
        ),
        NamedPicture(
            name="closed_forms",
            title="",
            image=pictures.closed_forms(found, rule),
            caption="An empty prediction: what MeanIoU reads (orange) and the honest value (blue) over the "
            "foreground's part of the pixels.",
            alt=f"Two curves. MeanIoU falls from 1 as foreground grows and is {theory['reported']} at "
            f"{percent(theory['pixel_error_of_reported'], 2)}; the honest mean IoU is a third all along.",
        ),
        NamedPicture(
            name="pixel_errors",
            title="",
            image=pictures.pixel_errors(found),
            caption="Hard predictions: MeanIoU over the part of wrong pixels. An empty prediction, our network and "
            "the report's number lie on one curve.",
            alt="A falling curve of MeanIoU over the part of wrong pixels, with three marked points.",
        ),
    ]


def _metric_words(found: Mapping[str, Any], rule: Mapping[str, Any] | None) -> list[str]:
    ways, theory = found["ways"], found["theory"]
    trained, hard = ways["trained"], ways["trained, hardened"]
    words = [
        "keras.metrics.MeanIoU(num_classes=3) expects a class number for each pixel. The usual U-Net gives it "
        "something else: a one-hot label such as (1, 0, 0) and a softmax such as (0.98, 0.01, 0.01). Keras does not "
        "complain and takes no argmax. It cuts each of the three numbers to a whole number: 0.98 becomes 0, and only "
        "an exact 1 stays 1. So its class 0 means “not this channel”, its class 1 means “this channel”, and its "
        "class 2 never occurs. Kidney and tumour are not in it at all.",
        "If the softmax is hard (one probability is exactly 1), the reading depends on one thing only: the part e of "
        "wrong pixels. It is ((1 − e) / (1 + e) + (2 − e) / (2 + e)) / 2. That is pixel accuracy in disguise. The "
        f"report's {theory['reported']} is e = {percent(theory['pixel_error_of_reported'], 2)}: "
        f"{percent(1 - theory['pixel_error_of_reported'], 2)} of the pixels right, and no more is said.",
        "An empty prediction is wrong in the foreground and right everywhere else, so for it e is the "
        f"foreground's part of the pixels. In the {found['num_cases']} test patients here that is "
        f"{percent(found['foreground_fraction'], 2)}, and it reads {number(ways['nothing']['as_reported'], 4)}. "
        f"The honest mean IoU of the same prediction is {number(ways['nothing']['mean_iou_pooled'], 4)}: background "
        "nearly 1, kidney 0, tumour 0.",
    ]
    if rule:
        words.append(
            f"The report's own rule keeps {rule['num_kept']} of {rule['num_cases']} KiTS19 cases. They have "
            f"{percent(rule['foreground_fraction'], 2)} foreground (of whole slices; the report crops first, which "
            "raises it), and on them an empty prediction reads "
            f"{number(rule['nothing_reads'])} and has a pixel accuracy of {number(1 - rule['foreground_fraction'])}, "
            f"where the honest value is {number(rule['nothing_is_worth'])}."
        )
    words.append(
        "And if the softmax is not hard, even a perfect prediction reads a third "
        f"({number(ways[_sure(ways, 'perfect')]['as_reported'], 4)} at p = {_sure(ways, 'perfect')[-5:]}). Our "
        f"trained network gives exactly 1 in {percent(trained['saturated_fraction'])} of the pixels, so as it is "
        f"it reads {number(trained['as_reported'], 4)}; the closed form says {number(trained['by_theory'], 4)}. Made "
        f"hard first (argmax, then one-hot) the same network reads {number(hard['as_reported'], 4)}. The metric "
        "changed; the segmentation did not."
    )
    return words


def labels(results: Results) -> list[Part]:
    """(c) Interpolated labels."""
    found = results.get("labels")
    if not found:
        return [missing("Labels that were averaged", "labels")]
    rows = [
        [
            title,
            interval(found[f"{name}_false_kidney"]),
            interval(found[f"{name}_tumour_left"]),
            interval(found[f"{name}_tumour_dice"]),
        ]
        for name, title in (("rounded", "mean, rounded"), ("cut", "mean, cut off"), ("nearest", "nearest"))
    ]
    by_size = np.array(sorted(found["by_case"]), float)[:, 1]
    third = max(1, len(by_size) // 3)
    small, large = (float(np.median(some)) for some in (by_size[:third], by_size[-third:]))
    return [
        Text(
            title="Labels that were averaged",
            paragraphs=[
                "MONAI's Resized averages (mode area) unless it is told otherwise, labels too. But labels are names, "
                "not amounts. Half tumour (2) and half background (0) is 1, and 1 means kidney: a tumour at the "
                "edge of a kidney gets a rim of kidney where there is only fat.",
                f"Of the pixels that touch kidney or tumour, {percent(found['fractional']['mean'])} had no whole "
                f"number (mean over patients). Over the {found['num_with_tumour']} patients with tumour, rounding "
                f"made {found['false_kidney_pixels']:,} pixels kidney in which no kidney lies, beside "
                f"{found['tumour_pixels']:,} pixels of tumour.",
                f"What is lost is the edge, and most of it in small tumours: rounded labels of the smallest third of "
                f"the tumours have a median Dice of {number(small)} with the right ones, of the largest third "
                f"{number(large)}. Cutting off, as a cast to whole numbers does, leaves "
                f"{percent(found['cut_tumour_left']['mean'])} of the tumour's pixels. Nearest keeps every label a "
                "label. It takes the upper left of what a pixel covers, so its Dice here is not 1 either: that shift "
                "is known, and is undone when a segmentation goes back to the scan.",
            ],
        ),
        Table(
            title="",
            header=["labels resized by", "false kidney per tumour pixel", "tumour pixels left", "tumour Dice"],
            rows=rows,
            note="Against the class that covers most of each pixel. Means over the patients with tumour, 95 % "
            f"intervals; {found['image_size']} pixels, no network involved.",
        ),
        NamedPicture(
            name="tumour_labels",
            title="",
            image=pictures.tumour_labels(found),
            caption="Each point is a patient: how well averaged tumour labels match the right ones, by tumour size.",
            alt=f"Scatter plot over tumour size. Median Dice of the smallest third {number(small)}, of the largest "
            f"third {number(large)}.",
        ),
    ]


def grey(results: Results) -> list[Part]:
    """(d) Gamma without clipping."""
    found = results.get("grey")
    if not found:
        return [missing("Gamma before clipping", "grey")]
    phantom, real = found["summary"]["phantom"], found["summary"].get("real")
    curve, highest = found["curves"]["unclipped"]["kidney"], found["curves"]["highest_hu"]
    words = [
        "ScaleIntensityRanged maps the window of -79 to 304 HU to 0 to 1 but does not clip unless it is told to. "
        "AdjustContrastd then applies gamma 1.5 between the darkest and the brightest voxel of the scan: x becomes "
        "((x − min) / (max − min))^1.5 (max − min) + min. So one bright voxel (metal, dense bone) changes the grey "
        "value of every kidney: for 180 HU it falls from "
        f"{number(curve[0], 2)} with a brightest voxel of {highest[0]:.0f} HU to {number(curve[-1], 2)} with "
        f"{highest[-1]:.0f} HU. Clipped, it is {number(found['curves']['clipped']['kidney'], 2)} always.",
        f"In the {phantom['unclipped']['num_cases']} synthetic patients the mean kidney lands on "
        f"{interval(phantom['unclipped'], 2)} without clipping. Where a PNG cuts what lies below 0, as MONAI's own "
        f"PNG writer does, {percent(phantom['black']['mean'])} of the kidney is black. Where the whole range is "
        f"spread over the PNG, {number(phantom['levels_unclipped']['mean'], 0)} of 255 grey levels lie between "
        f"muscle and kidney; clipped, {number(phantom['levels_clipped']['mean'], 0)}.",
    ]
    if real:
        row = next(one for one in found["cases"] if one["source"] == "real")
        words.append(
            f"The whole real scan we have (brightest voxel {row['highest_hu']:.0f} HU) puts its kidneys at "
            f"{number(row['unclipped'], 2)} without clipping, and at {number(row['with_metal'], 2)} if one voxel of "
            f"metal is added; clipped at {number(row['clipped'], 2)} either way. Black in a PNG: "
            f"{percent(row['black'])} of the kidney, with metal {percent(row['black_with_metal'])}."
        )
    limit_hu = PRESETS["report"]["hu_max"]
    words.append(
        f"The report leaves out cases with a voxel above {limit_hu:.0f} HU, perhaps because of this. It does not "
        f"help: at that limit a kidney of 180 HU still lands on {number(np.interp(limit_hu, highest, curve), 2)}."
    )
    if real:
        words.append("The single real slices here come from pictures that were clipped before: they cannot show it.")
    return [
        Text(title="Gamma before clipping", paragraphs=words),
        NamedPicture(
            name="grey_values",
            title="",
            image=pictures.grey_values(found),
            caption="The kidney's grey value over the scan's brightest voxel. Each point is a patient's mean kidney.",
            alt="Without clipping the kidney's grey value falls below 0 as the brightest voxel grows; clipped it "
            "stays within 0 to 1.",
        ),
    ]


def _sure(ways: Mapping[str, Any], whose: str) -> str:
    return next(name for name in ways if name.startswith(f"{whose}, p"))
