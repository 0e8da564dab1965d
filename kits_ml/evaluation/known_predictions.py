"""Predictions whose scores are known: small patients with their pixels counted by hand.

Two patients on slices of 8x8 pixels, drawn with `.` background, `k` kidney, `t` tumour. Each known case carries its
table of counts, row = true label, column = predicted label, counted by eye and not by any code of this package;
`tests/evaluation/test_selftest.py` counts them again, pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits_ml.labels import NUM_CLASSES

#: Counts of pixels: row = true label, column = predicted label. A fourth row is for pixels whose label is none.
Table = tuple[tuple[int, int, int], ...]

#: Softmax values of the predicted class; the next class, cyclically, gets most of the rest. In `flat` no class has
#: half of the probability.
SOFTMAX = {
    "saturated": (1.0, 0.0, 0.0),
    "0.987": (0.987, 0.008, 0.005),
    "0.6/0.3/0.1": (0.6, 0.3, 0.1),
    "0.4/0.35/0.25": (0.4, 0.35, 0.25),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownCase:
    """A patient and a prediction for it.

    Attributes:
        labels: `(slices, rows, columns)` uint8.
        label_map_pred: the same shape and type; the most probable class of `probabilities`.
        probabilities: `(slices, rows, columns, classes)` float32, summing to 1.
        table: its counts, by hand.
    """

    labels: np.ndarray
    label_map_pred: np.ndarray
    probabilities: np.ndarray
    table: Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What a metric is fed.

    Attributes:
        name: what the table of the self-test calls it.
        cases: one or several patients.
        out_of_range: the labels are not 0, 1, 2, as in masks that were stored for the eye.
    """

    name: str
    cases: tuple[KnownCase, ...]
    out_of_range: bool = False


def _draw(*slices: str) -> np.ndarray:
    """`(slices, 8, 8)` labels; a drawing gives the rows from the third on, what is not drawn is background."""
    found = np.zeros((len(slices), 8, 8), np.uint8)
    for one, drawing in zip(found, slices, strict=True):
        for row, line in enumerate(drawing.split(), start=2):
            one[row, : len(line)] = [".kt".index(letter) for letter in line]
    return found


# A: 3 slices, 192 pixels. The first is empty; the second has 4x4 pixels, 12 kidney around 4 tumour; the third has 4x2
# kidney. So 20 kidney, 4 tumour, 168 background.
PATIENT_A = _draw("", "..kkkk ..kttk ..kttk ..kkkk", "..kk ..kk ..kk ..kk")

# The same, one column to the right. Second slice: column 2 was kidney (4), column 6 is new (4); in columns 3 to 5 the
# upper and lower rows stay kidney (6), and of the two rows between, column 3 was tumour and is kidney (2), column 4
# stays tumour (2), column 5 was kidney and is tumour (2). Third slice: column 2 lost (4), 3 kept (4), 4 new (4).
SHIFTED_A = _draw("", "...kkkk ...kttk ...kttk ...kkkk", "...kk ...kk ...kk ...kk")

# B: 2 slices, 128 pixels, no tumour: 1x4 and 3x4 kidney, 16; 112 background.
PATIENT_B = _draw("kkkk", "kkkk kkkk kkkk")
# The lower row of 4 is missed.
PARTLY_B = _draw("kkkk", "kkkk kkkk")
# All kidney found, and 2 pixels of background are taken for tumour.
FALSE_TUMOUR_B = _draw("kkkk", "kkkk kkkk kkkk ....tt")


def known_case(labels: np.ndarray, label_map_pred: np.ndarray, table: Table, softmax: str = "saturated") -> KnownCase:
    """A case with probabilities for its predicted classes; `softmax` is a key of `SOFTMAX`."""
    classes = (label_map_pred[..., None] + np.arange(NUM_CLASSES)) % NUM_CLASSES
    probabilities = np.zeros((*label_map_pred.shape, NUM_CLASSES), np.float32)
    np.put_along_axis(probabilities, classes, np.broadcast_to(np.float32(SOFTMAX[softmax]), classes.shape), axis=-1)
    return KnownCase(labels=labels, label_map_pred=label_map_pred, probabilities=probabilities, table=table)


def _one(name: str, *arguments, out_of_range: bool = False) -> Scenario:
    return Scenario(name=name, cases=(known_case(*arguments),), out_of_range=out_of_range)


_RIGHT = ((168, 0, 0), (0, 20, 0), (0, 0, 4))
_NOTHING = ((168, 0, 0), (20, 0, 0), (4, 0, 0))
_NO_TUMOUR = ((168, 0, 0), (0, 20, 0), (0, 4, 0))
_PARTLY = ((112, 0, 0), (4, 12, 0), (0, 0, 0))

_FULL = np.ones_like(PATIENT_A)
_SWAPPED = np.array([0, 2, 1], np.uint8)[PATIENT_A]
_NO_TUMOUR_A = np.array([0, 1, 1], np.uint8)[PATIENT_A]
_NO_KIDNEY_A = np.array([0, 0, 2], np.uint8)[PATIENT_A]
_FOR_THE_EYE = np.array([0, 127, 255], np.uint8)[PATIENT_A]
_EMPTY = np.zeros_like(PATIENT_B)

SCENARIOS: tuple[Scenario, ...] = (
    _one("perfect, saturated", PATIENT_A, PATIENT_A, _RIGHT),
    *(_one(f"perfect, p = {name}", PATIENT_A, PATIENT_A, _RIGHT, name) for name in list(SOFTMAX)[1:]),
    _one("all background, saturated", PATIENT_A, 0 * _FULL, _NOTHING),
    _one("all background, p = 0.6/0.3/0.1", PATIENT_A, 0 * _FULL, _NOTHING, "0.6/0.3/0.1"),
    _one("all kidney", PATIENT_A, _FULL, ((0, 168, 0), (0, 20, 0), (0, 4, 0))),
    _one("kidney and tumour swapped", PATIENT_A, _SWAPPED, ((168, 0, 0), (0, 0, 20), (0, 4, 0))),
    _one("shifted by a pixel", PATIENT_A, SHIFTED_A, ((160, 8, 0), (8, 10, 2), (0, 2, 2))),
    _one("tumour taken for kidney", PATIENT_A, _NO_TUMOUR_A, _NO_TUMOUR),
    _one("tumour taken for kidney, p = 0.6/0.3/0.1", PATIENT_A, _NO_TUMOUR_A, _NO_TUMOUR, "0.6/0.3/0.1"),
    _one("kidney taken for background", PATIENT_A, _NO_KIDNEY_A, ((168, 0, 0), (20, 0, 0), (0, 0, 4))),
    _one("patient without tumour", PATIENT_B, PARTLY_B, _PARTLY),
    _one("patient without tumour, some predicted", PATIENT_B, FALSE_TUMOUR_B, ((110, 0, 2), (0, 16, 0), (0, 0, 0))),
    _one("scan without kidneys", _EMPTY, _EMPTY, ((128, 0, 0), (0, 0, 0), (0, 0, 0))),
    Scenario(
        name="two patients",
        cases=(known_case(PATIENT_A, _NO_TUMOUR_A, _NO_TUMOUR), known_case(PATIENT_B, PARTLY_B, _PARTLY)),
    ),
    _one(
        "labels 127 and 255",
        *(_FOR_THE_EYE, PATIENT_A, ((168, 0, 0), (0, 0, 0), (0, 0, 0), (0, 20, 4))),
        out_of_range=True,
    ),
)
