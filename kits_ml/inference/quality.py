"""A prediction's quality report: what was found, in millilitres and millimetres, and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from kits_ml.config import QualitySettings
from kits_ml.data import contrast, training_range
from kits_ml.errors import InputError
from kits_ml.inference import flags
from kits_ml.inference.flags import Flag, Unchecked
from kits_ml.inference.measurements import Fragment, Kidney, Tumour, as_dict, measure
from kits_ml.inference.provenance import Provenance
from kits_ml.inference.uncertainty import UncertaintyMeter
from kits_ml.labels import KIDNEY, LABEL_NAMES, TUMOUR, region_volumes_ml

#: Raised whenever a reader of the JSON would have to change.
FORMAT_VERSION = 2

NOTICE = "For research use only, not a medical device."


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """What is known of a prediction.

    Attributes:
        shape: slices, rows, columns.
        spacing_mm: distance between them.
        volumes_ml: of the scored regions: `kidney`, tumours included, and `tumour`; all voxels, fragments too.
        kidneys: from the patient's right to left.
        tumours: from large to small.
        fragments: pieces too small to be either, from large to small.
        kidney_hu: mean HU of kidney tissue without tumour; None without any.
        contrast: its class, see `contrast.CONTRAST_CLASSES`.
        doubt: by label (`kidney`, `tumour`) the means of `confidence`, `entropy` and, where it was measured,
            `spread`, all in [0, 1] and None where there is no such voxel; empty where no uncertainty is known.
        flags: what speaks against the prediction, errors first; empty if nothing.
        unchecked: rules whose silence says nothing, because something is not known; empty if all ran.
        limits: the settings by which the flags were raised.
        provenance: what the prediction was made of and by; None where nobody said.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    volumes_ml: Mapping[str, float]
    kidneys: tuple[Kidney, ...]
    tumours: tuple[Tumour, ...]
    fragments: tuple[Fragment, ...]
    kidney_hu: float | None
    contrast: str
    doubt: Mapping[str, Mapping[str, float | None]]
    flags: tuple[Flag, ...]
    limits: Mapping[str, float]
    unchecked: tuple[Unchecked, ...] = ()
    provenance: Provenance | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers are rounded to three decimals."""
        return {
            "format": FORMAT_VERSION,
            "notice": NOTICE,
            "provenance": self.provenance and self.provenance.to_dict(),
            "flags": [vars(flag) for flag in self.flags],
            "unchecked": [vars(one) for one in self.unchecked],
            "volumes_ml": {name: round(value, 3) for name, value in self.volumes_ml.items()},
            "kidneys": [as_dict(one) for one in self.kidneys],
            "tumours": [as_dict(one) for one in self.tumours],
            "fragments": [as_dict(one) for one in self.fragments],
            "kidney_hu": _rounded(self.kidney_hu),
            "contrast": self.contrast,
            "doubt": {
                label: {name: _rounded(value) for name, value in means.items()} for label, means in self.doubt.items()
            },
            "limits": dict(self.limits),
            "shape": list(self.shape),
            "spacing_mm": [round(size, 6) for size in self.spacing_mm],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, also by way of JSON.

        Raises:
            InputError: another version of the format.
        """
        if values.get("format") != FORMAT_VERSION:
            raise InputError(f"quality report: found format {values.get('format')!r}, expected {FORMAT_VERSION}")
        nested = {
            name: tuple(kind(**{**one, "centre": tuple(one["centre"])}) for one in values[name])
            for name, kind in (("kidneys", Kidney), ("tumours", Tumour), ("fragments", Fragment))
        }
        return cls(
            **nested,
            **{name: values[name] for name in ("volumes_ml", "kidney_hu", "contrast", "doubt", "limits")},
            flags=tuple(Flag(**one) for one in values["flags"]),
            unchecked=tuple(Unchecked(**one) for one in values.get("unchecked", ())),
            provenance=values["provenance"] and Provenance.from_dict(values["provenance"]),
            shape=tuple(values["shape"]),
            spacing_mm=tuple(values["spacing_mm"]),
        )


def assess(
    image: np.ndarray,
    label_map: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    uncertainty: UncertaintyMeter | None = None,
    training: Mapping[str, Any] | None = None,
    settings: QualitySettings | None = None,
    provenance: Provenance | None = None,
) -> QualityReport:
    """Measures a prediction and looks for what speaks against it.

    Args:
        image: `(slices, rows, columns)` in HU, slices from superior to inferior, rows to posterior, columns to the
            patient's left.
        label_map: the same shape, values 0, 1, 2, after whatever postprocessing.
        spacing_mm: distance between slices, rows and columns.
        uncertainty: that observed the segmentation of this scan.
        training: what the model's description says of its training data, see `training_range`; what it does not say
            is not looked at, and the report names it as unchecked.
        settings: limits; the defaults where none are given.
        provenance: what the prediction was made of and by; stands in the report as it is.

    Returns:
        The report. Where nothing is labelled it has no kidneys, no tumours and the flag `no_kidney`.

    Raises:
        InputError: shapes that differ, or a spacing that is no three positive numbers.
    """
    settings = settings or QualitySettings()
    spacing_mm = _checked(image, label_map, spacing_mm, uncertainty)
    measured = measure(image, label_map, spacing_mm=spacing_mm, uncertainty=uncertainty, settings=settings)
    volumes_ml = region_volumes_ml(label_map, spacing_mm)
    kidney_hu = contrast.mean_kidney_hu(image, label_map)
    facts = flags.Facts(
        measured=measured,
        volumes_ml=volumes_ml,
        kidney_hu=kidney_hu,
        hu=training_range.sampled_percentiles(image),
        spacing_mm=spacing_mm,
        field_of_view_mm=[num * size for num, size in zip(image.shape, spacing_mm, strict=True)],
        training=training or {},
        settings=settings,
    )
    return QualityReport(
        shape=tuple(image.shape),
        spacing_mm=spacing_mm,
        volumes_ml=volumes_ml,
        kidneys=measured.kidneys,
        tumours=measured.tumours,
        fragments=measured.fragments,
        kidney_hu=None if math.isnan(kidney_hu) else kidney_hu,
        contrast=contrast.contrast_class(kidney_hu),
        doubt=_doubt(label_map, uncertainty),
        flags=flags.raise_flags(facts),
        unchecked=flags.not_checked(facts),
        limits=settings.to_dict(),
        provenance=provenance,
    )


def _checked(
    image: np.ndarray, label_map: np.ndarray, spacing_mm: Sequence[float], uncertainty: UncertaintyMeter | None
) -> tuple[float, float, float]:
    if image.ndim != 3 or label_map.shape != image.shape:
        raise InputError(
            f"label map of shape {label_map.shape} and image of shape {image.shape}: expected the same "
            "(slices, rows, columns)"
        )
    if uncertainty is not None and uncertainty.shape != image.shape:
        raise InputError(f"uncertainty of shape {uncertainty.shape}: expected the image's {image.shape}")
    if len(spacing_mm) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise InputError(f"spacing_mm: found {list(spacing_mm)}, expected three positive numbers")
    return tuple(float(size) for size in spacing_mm)


def _doubt(label_map: np.ndarray, uncertainty: UncertaintyMeter | None) -> dict[str, dict[str, float | None]]:
    if uncertainty is None:
        return {}
    return {LABEL_NAMES[label]: uncertainty.means(label_map, label) for label in (KIDNEY, TUMOUR)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
