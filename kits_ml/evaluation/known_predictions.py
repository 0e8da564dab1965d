"""Predictions whose scores are known: small patients with their pixels counted by hand.

Patients on slices of 8x8 pixels, drawn with `.` background, `k` kidney, `t` tumour. Each known case carries its table
of counts, row = true label, column = predicted label, counted by eye and not by any code of this package;
`tests/evaluation/test_known_predictions.py` counts them again, pixel by pixel. `SCENARIOS` are for every metric; the
others below are for those that need a shape, a distance or a probability of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits_ml.labels import NUM_CLASSES

#: Counts of pixels: row = true label, column = predicted label. A fourth row is for pixels whose label is none.
Table = tuple[tuple[int, int, int], ...]

#: Distance between the known slices, rows and columns, where nothing else is said. The box of 20 mm around anything
#: that is labelled is then the whole scan.
SPACING_MM = (5.0, 1.0, 2.0)

#: Softmax values of the predicted class; the next class, cyclically, gets most of the rest. In the last one no class
#: has half of the probability.
SOFTMAX = {
    "saturated": (1.0, 0.0, 0.0),
    "0.987": (0.987, 0.008, 0.005),
    "0.6/0.3/0.1": (0.6, 0.3, 0.1),
    "0.4/0.35/0.25": (0.4, 0.35, 0.25),
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """Pixels that were given the same probabilities.

    Attributes:
        probabilities: of background, kidney and tumour.
        num_true: how many of the pixels are background, kidney and tumour.
    """

    probabilities: tuple[float, float, float]
    num_true: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownCase:
    """A patient and a prediction for it.

    Attributes:
        labels: `(slices, rows, columns)` uint8.
        label_map_pred: the same shape and type; the most probable class of `probabilities`.
        probabilities: `(slices, rows, columns, classes)` float32, summing to 1.
        table: its counts, by hand.
        calls: all pixels by what they were given, by hand; pixels without a label count as none.
        calls_near: those in the box of 20 mm around what is labelled; none where nothing is.
    """

    labels: np.ndarray
    label_map_pred: np.ndarray
    probabilities: np.ndarray
    table: Table
    calls: tuple[Call, ...]
    calls_near: tuple[Call, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What a metric is fed.

    Attributes:
        name: what the table of the self-test calls it.
        cases: one or several patients.
        out_of_range: the labels are not 0, 1, 2, as in masks that were stored for the eye.
        spacing_mm: distance between slices, rows and columns.
    """

    name: str
    cases: tuple[KnownCase, ...]
    out_of_range: bool = False
    spacing_mm: tuple[float, float, float] = SPACING_MM


def _draw(*slices: str, letters: str = ".kt") -> np.ndarray:
    """`(slices, 8, 8)` labels; a drawing gives the rows from the third on, what is not drawn is background."""
    found = np.zeros((len(slices), 8, 8), np.uint8)
    for one, drawing in zip(found, slices, strict=True):
        for row, line in enumerate(drawing.split(), start=2):
            one[row, : len(line)] = [letters.index(letter) for letter in line]
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
    calls = tuple(
        Call(
            probabilities=tuple(SOFTMAX[softmax][(label - predicted) % NUM_CLASSES] for label in range(NUM_CLASSES)),
            num_true=tuple(table[label][predicted] for label in range(NUM_CLASSES)),
        )
        for predicted in range(NUM_CLASSES)
    )
    return KnownCase(
        labels=labels,
        label_map_pred=label_map_pred,
        probabilities=probabilities,
        table=table,
        calls=calls,
        calls_near=calls if labels.any() else (),
    )


def _one(name: str, *arguments, **options) -> Scenario:
    return Scenario(name=name, cases=(known_case(*arguments),), **options)


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


# A tumour of 2x2 pixels in a single slice: a box, whose every corner lies on its surface.
_BOX = _draw("...tt ...tt")

#: Rows are 1.1 mm apart: more than is tolerated of a kidney (1.03 mm), less than of a tumour (1.15 mm).
A_ROW_TOO_FAR = _one(
    "a box, 1.1 mm too far",
    *(_BOX, _draw(". ...tt ...tt"), ((58, 0, 2), (0, 0, 0), (2, 0, 2))),
    spacing_mm=(5.0, 1.1, 2.0),
)

#: The box is right, and a pixel two columns beside it is wrong: 4 mm away, its far side 6 mm.
A_PIXEL_TOO_MUCH = _one(
    "a box, and a pixel beside it", _BOX, _draw("...tt..t ...tt"), ((59, 0, 1), (0, 0, 0), (0, 0, 4))
)

# Voxels of 2 ml: a sphere of 2.1 of them has a diameter of 20 mm, of 16.8 40 mm, of 89.8 70 mm. First two slices: 90
# voxels. Fourth: 17 on the left, 2 in the corner, and 3 on the right, of which two touch by a corner. Sixth: 16.
_LESIONS = _draw(
    "tttttttt tttttttt tttttttt tttttttt tttttttt ttttt",
    "tttttttt tttttttt tttttttt tttttttt tttttttt ttttt",
    "",
    "tttt..tt tttt tttt..t tttt...t t......t",
    "",
    "tttt tttt tttt tttt",
)
# Of the 90 a tenth, 9; of the 17 one, which is one of a piece of 11; the 2 not at all; the 3 and the 16 whole; and a
# voxel in the last corner. So 29 of 128 are right and 10 + 1 wrong.
_LESIONS_PRED = _draw(
    *("tttttttt t", "", "", ". . ......t .......t ttttt..t tttttt", ""),
    "tttt tttt tttt tttt . .......t",
)
LESIONS_OF_EVERY_SIZE = _one(
    "lesions of every size",
    *(_LESIONS, _LESIONS_PRED, ((245, 0, 11), (0, 0, 0), (99, 0, 29))),
    spacing_mm=(20.0, 10.0, 10.0),
)

#: One patient's lesions are all found, another's are all missed, and a third has none and is given those.
LESIONS_OF_THREE_PATIENTS = Scenario(
    name="lesions of three patients",
    cases=(
        known_case(_LESIONS, _LESIONS, ((256, 0, 0), (0, 0, 0), (0, 0, 128))),
        known_case(_LESIONS, 0 * _LESIONS, ((256, 0, 0), (0, 0, 0), (128, 0, 0))),
        known_case(0 * _LESIONS, _LESIONS, ((256, 0, 128), (0, 0, 0), (0, 0, 0))),
    ),
    spacing_mm=(20.0, 10.0, 10.0),
)


def _near_and_far() -> KnownCase:
    """A kidney of 8 pixels, and pixels that are called kidney with another probability each: `a`, `b`, `c`, `s`.

    20 mm are one slice, two rows and one column here, so the box has 2 x 6 x 5 = 60 pixels: all of `a`, `b`, `c` (one
    `c` is its last corner) and none of `s`, of which one is a column, one a row and 8 are a slice too far. Of 15 bins
    `a` and `b` share one, and `c` is in the next; with 10, 14, 16 or 20 bins they are sorted otherwise.
    """
    labels = _draw("kkkk kkkk", "", "")
    drawn = _draw("aaaa bccc bbb", ".....s . . ....c s", "ssssssss", letters=".abcs")
    kidney = np.array([0, 0.61, 0.66, 0.68, 1], np.float32)[drawn]
    called = (
        Call(probabilities=(0.39, 0.61, 0.0), num_true=(0, 4, 0)),
        Call(probabilities=(0.34, 0.66, 0.0), num_true=(3, 1, 0)),
        Call(probabilities=(0.32, 0.68, 0.0), num_true=(1, 3, 0)),
    )
    beyond = Call(probabilities=(0.0, 1.0, 0.0), num_true=(10, 0, 0))
    return KnownCase(
        labels=labels,
        label_map_pred=(drawn > 0).astype(np.uint8),
        probabilities=np.stack([1 - kidney, kidney, 0 * kidney], axis=-1),
        table=((170, 14, 0), (0, 8, 0), (0, 0, 0)),
        calls=(*called, beyond, Call(probabilities=(1.0, 0.0, 0.0), num_true=(170, 0, 0))),
        calls_near=(*called, Call(probabilities=(1.0, 0.0, 0.0), num_true=(48, 0, 0))),
    )


NEAR_AND_FAR = Scenario(name="doubts near and far", cases=(_near_and_far(),), spacing_mm=(20.0, 10.0, 20.0))
