"""The slices of one case for a page: small pictures with the contours of truth and prediction as vector paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kits_ml import figures, labels, scores

#: Slices shown of a case, at most.
MOST_SLICES = 40
#: Length of a picture's longer side, pixels.
PICTURE_SIZE = 256

_JPEG_QUALITY = 80
#: Paths are written in whole tenths of a pixel.
_PATH_UNITS = 10


@dataclass(frozen=True, kw_only=True)
class SlicePicture:
    """One slice.

    Attributes:
        index: its number in the scan.
        text: what is to be seen, in words.
        jpeg: the picture as a data URI.
        paths: SVG path data by `<region>-<truth or prediction>`, in tenths of the picture's pixels; those that are
            there.
    """

    index: int
    text: str
    jpeg: str
    paths: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class CaseSlices:
    """The slices of a case.

    Attributes:
        case: its name.
        rank: `worst`, `median` or `best`.
        width, height: of every picture, pixels.
        num_slices: of the whole scan.
        start: position in `slices` of the one to show first.
        slices: from superior to inferior.
    """

    case: str
    rank: str
    width: int
    height: int
    num_slices: int
    start: int
    slices: tuple[SlicePicture, ...]


def slices_of_case(
    image: np.ndarray,
    label_map_true: np.ndarray,
    label_map_pred: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    case: str,
    rank: str,
) -> CaseSlices:
    """Draws a case's slices around its kidneys.

    Args:
        image: `(slices, rows, columns)` in HU, drawn in `figures.WINDOW_HU`.
        label_map_true: the same shape, values 0, 1, 2.
        label_map_pred: the same for the prediction.
        spacing_mm: distance between slices, rows and columns: a body is drawn as wide as it is.
        case: its name.
        rank: `worst`, `median` or `best`.

    Raises:
        ValueError: a label map whose shape is not the image's.
    """
    if not image.shape == label_map_true.shape == label_map_pred.shape:
        raise ValueError(
            f"image {image.shape}, truth {label_map_true.shape}, prediction {label_map_pred.shape}: "
            "expected one shape"
        )
    telling = figures.telling_slices(label_map_true, label_map_pred)
    chosen = choose_slices(label_map_true, label_map_pred, telling=list(telling))
    both = [label_map_true[chosen], label_map_pred[chosen]]
    rows, columns = figures.labelled_view(both, image.shape[1:], spacing_mm[1:])
    shape = image[0, rows, columns].shape
    side_mm = shape[0] * spacing_mm[1], shape[1] * spacing_mm[2]
    height, width = (max(1, round(PICTURE_SIZE * one / max(side_mm))) for one in side_mm)
    pictures = tuple(
        SlicePicture(
            index=index,
            text=_describe(label_map_true[index], label_map_pred[index], telling.get(index, "")),
            jpeg=_jpeg(image[index, rows, columns], width, height),
            paths=_paths(label_map_true[index, rows, columns], label_map_pred[index, rows, columns], width, height),
        )
        for index in chosen
    )
    reasons = {reason: index for index, reason in telling.items()}
    first = reasons.get("largest difference", next(iter(telling), chosen[len(chosen) // 2]))
    return CaseSlices(
        case=case,
        rank=rank,
        width=width,
        height=height,
        num_slices=len(image),
        start=chosen.index(first),
        slices=pictures,
    )


def choose_slices(
    label_map_true: np.ndarray, label_map_pred: np.ndarray, *, telling: Sequence[int], most: int = MOST_SLICES
) -> list[int]:
    """Up to `most` slices, evenly from one above all that is labelled to one below, the telling ones among them."""
    seen = [
        index
        for index, pair in enumerate(zip(label_map_true, label_map_pred, strict=True))
        if any(one.any() for one in pair)
    ]
    last_slice = len(label_map_true) - 1
    first, last = (max(seen[0] - 1, 0), min(seen[-1] + 1, last_slice)) if seen else (0, last_slice)
    places = np.unique(np.linspace(first, last, max(most - len(telling), 1)).round().astype(int))
    return sorted({*places.tolist(), *telling})


def contour_path(mask: np.ndarray, *, width: int, height: int) -> str:
    """The outlines of a mask as SVG path data, in tenths of a pixel of a picture of that size; empty without any.

    Args:
        mask: boolean, `(rows, columns)`; an outline runs half way between its pixels and the others.
        width, height: of the picture that shows the whole mask.
    """
    from contourpy import contour_generator

    if not mask.any():
        return ""
    framed = np.pad(mask, 1).astype(np.float32)  # closes outlines at the edge of the picture
    scale = np.array([width / mask.shape[1], height / mask.shape[0]]) * _PATH_UNITS
    parts = []
    for line in contour_generator(z=framed).lines(0.5):
        corners = np.rint((line - 0.5) * scale).astype(int)  # the middle of the first pixel lies at 1 in the frame
        steps = np.diff(corners[:-1], axis=0)
        moves = "".join(f"{x} {y} " for x, y in steps.tolist() if x or y)
        parts.append(f"M{corners[0, 0]} {corners[0, 1]}l{moves.strip()}z")
    return "".join(parts)


def _paths(true: np.ndarray, pred: np.ndarray, width: int, height: int) -> dict[str, str]:
    found = {
        f"{region}-{whose}": contour_path(labels.region_mask(label_map, region), width=width, height=height)
        for region in labels.REGIONS
        for whose, label_map in (("truth", true), ("prediction", pred))
    }
    return {name: path for name, path in found.items() if path}


def _jpeg(image_slice: np.ndarray, width: int, height: int) -> str:
    low, high = figures.WINDOW_HU
    grey = np.clip((image_slice.astype(np.float32) - low) / (high - low), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    payload = io.BytesIO()
    picture.save(payload, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(payload.getvalue()).decode()


def _describe(true: np.ndarray, pred: np.ndarray, reason: str) -> str:
    matrix = scores.confusion_matrix(true, pred)
    said = [reason] if reason else []
    for region in labels.REGIONS:
        counts = scores.region_counts(matrix, region)
        if counts[0] and counts[1]:
            said.append(f"{region} Dice {scores.dice_from_counts(*counts):.2f}")
        elif counts[0] or counts[1]:
            said.append(f"{region} missed" if counts[0] else f"{region} where there is none")
    return "; ".join(said) or "nothing labelled"
