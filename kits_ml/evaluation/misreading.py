"""What `keras.metrics.MeanIoU` reads when it is given one-hot labels and softmax, in closed form.

Used as `keras.metrics.MeanIoU(num_classes=3)` it takes no argmax: labels and softmax are both cut to whole numbers,
entry by entry, so p < 1 becomes 0 and p = 1 becomes 1. Its "class 0" then means *not this channel*, its "class 1"
*this channel*, and its class 2 never occurs and is left out of the mean. For N pixels with a one-hot label there are
3N entries, of which N are 1.
"""

from __future__ import annotations

from kits_ml.errors import InputError


def misread_iou_of_softmax(*, saturated_right: float, saturated_wrong: float) -> float:
    """What it reads for any softmax, from the pixels of which one probability is exactly 1.

    With a part r of N pixels saturated and right and a part w saturated and wrong, "this channel" is predicted in
    (r + w)N entries, true in N and both in rN, so its IoU is r / (1 + w); "not this channel" is predicted in
    (3 - r - w)N, true in 2N and both in (2 - w)N, so its IoU is (2 - w) / (3 - r). The reading is their mean: a pixel
    that is right but not wholly sure of it counts as missed. To read 0.989, more than 98 % must be wholly sure.

    Args:
        saturated_right: part of the pixels that give their true class a probability of exactly 1.
        saturated_wrong: part of the pixels that give another class a probability of exactly 1.

    Raises:
        InputError: a part outside [0, 1], or more than 1 together.
    """
    r, w = _checked("saturated_right", saturated_right), _checked("saturated_wrong", saturated_wrong)
    if r + w > 1 + 1e-9:
        raise InputError(f"saturated_right + saturated_wrong: found {r + w!r}, expected at most 1")
    return (r / (1 + w) + (2 - w) / (3 - r)) / 2


def misread_iou_of_pixel_error(pixel_error: float) -> float:
    """What it reads for saturated softmax (each pixel 1 for one class), whatever the classes.

    With a part e of N pixels wrong, "this channel" is right in (1 - e)N entries of N true and N predicted ones, so
    its IoU is (1 - e) / (1 + e); "not this channel" has 2N true, 2N predicted and (2 - e)N common entries, so
    its IoU is (2 - e) / (2 + e). The reading is their mean: pixel accuracy in disguise, not overlap. This is
    `misread_iou_of_softmax` of 1 - e and e.

    Args:
        pixel_error: part of the pixels whose class is wrong, in [0, 1].

    Raises:
        InputError: not in [0, 1].
    """
    e = _checked("pixel_error", pixel_error)
    return misread_iou_of_softmax(saturated_right=1 - e, saturated_wrong=e)


def misread_iou_of_background(foreground_fraction: float) -> float:
    """What it reads for a prediction of nothing, in saturated softmax.

    A prediction of background is wrong in the foreground and nowhere else, so the foreground's part is the error.

    Args:
        foreground_fraction: part of the pixels that are kidney or tumour, in [0, 1].

    Raises:
        InputError: not in [0, 1].
    """
    return misread_iou_of_pixel_error(_checked("foreground_fraction", foreground_fraction))


def pixel_error_of_misread_iou(reading: float) -> float:
    """The part of wrong pixels behind a reading of saturated softmax; undoes `misread_iou_of_pixel_error`.

    The mean of the two fractions is (2 - e^2) / ((1 + e)(2 + e)). Set to m, this is
    (1 + m) e^2 + 3m e - 2(1 - m) = 0, whose positive root is the error.

    Args:
        reading: in [1/6, 1]; with every pixel wrong it still reads 1/6.

    Raises:
        InputError: not in [1/6, 1].
    """
    if not 1 / 6 <= reading <= 1:
        raise InputError(f"reading: found {reading!r}, expected 1/6 to 1")
    m = reading
    return min((-3 * m + (9 * m * m + 8 * (1 + m) * (1 - m)) ** 0.5) / (2 * (1 + m)), 1.0)


def saturated_part_behind_misread_iou(reading: float) -> float:
    """The part of the pixels that must at least be wholly sure (one probability exactly 1) for a reading.

    Most is read where all that are sure are right, (r + 2 / (3 - r)) / 2. Set to m, this is
    r^2 - (3 + 2m) r + 6m - 2 = 0, whose smaller root is the part.

    Args:
        reading: in [1/3, 1]; a third is read without any.

    Raises:
        InputError: not in [1/3, 1].
    """
    if not 1 / 3 <= reading <= 1:
        raise InputError(f"reading: found {reading!r}, expected 1/3 to 1")
    b = 3 + 2 * reading
    return (b - (b * b - 4 * (6 * reading - 2)) ** 0.5) / 2


#: What it reads for any prediction in which no probability is exactly 1, be it perfect: "this channel" is never
#: predicted and has an IoU of 0; "not this channel" is predicted in all 3N entries of which 2N are true. Half of 2/3.
MISREAD_IOU_OF_UNSATURATED = 1 / 3


def _checked(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"{name}: found {value!r}, expected 0 to 1")
    return value
