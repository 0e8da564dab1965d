"""What a case is, in numbers: grid, HU, labels and a digest of its voxels. Each file is read once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from kits_ml import labels
from kits_ml.data import cases as case_files
from kits_ml.data import images, placement, volumes
from kits_ml.data.blocks import contiguous_blocks
from kits_ml.errors import InputError

#: Raised whenever the same files would give another fingerprint.
FORMAT_VERSION = 1

#: The percentiles of HU that are kept, by the name of their column.
PERCENTILES = {"p00_5": 0.5, "p05": 5.0, "p50": 50.0, "p95": 95.0, "p99_5": 99.5}

#: Edges of the coarse histograms, in HU: the range in which soft tissue and contrast agent lie.
HISTOGRAM_EDGES_HU = tuple(range(-200, 401, 10))

#: Slices that are looked at together: some megabytes.
_BLOCK = 32

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, kw_only=True)
class HuStatistics:
    """HU of some voxels.

    Attributes:
        min, max, mean: in HU, exact.
        p00_5, p05, p50, p95, p99_5: percentiles, in HU: the lowest whole number that so many percent of the voxels
            do not exceed (beyond the int16 range: that range's end).
        counts: voxels in each bin of `HISTOGRAM_EDGES_HU`; those outside are not counted.
    """

    min: float
    max: float
    mean: float
    p00_5: float
    p05: float
    p50: float
    p95: float
    p99_5: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A case in numbers. Axes are the house's: slices, rows, columns.

    Attributes:
        case: its name.
        slices, rows, columns: how many.
        slice_spacing_mm, row_spacing_mm, column_spacing_mm: distance between neighbours.
        orientation: the file's axis codes, e.g. `IPL`.
        tilt_degrees: largest angle between an axis of the file and the scanner axis nearest to it.
        shear_degrees: how far the file's axes are from being at right angles.
        header_spacing_error_mm: largest difference between the spacing in the header's `pixdim` and in its affine.
        image_dtype, labels_dtype: as stored; the latter empty without a label map.
        whole_hu: whether every voxel is a whole number.
        voxels_digest: of shape and voxel values in the house's axis order: the same for equal scans however they are
            compressed, stored or oriented.
        hu: of the whole image.
        has_labels: whether there is a label map. Without one, all that follows is 0, False or None.
        kidney_ml, tumour_ml: volumes of the scored regions: the kidney includes its tumour.
        kidney_slices, tumour_slices: slices that show the region.
        kidney_at_end: whether the first or the last slice shows kidney: the scan may cut it off.
        kidney_hu, tumour_hu: HU of the label: kidney without its tumour. None where there is no such voxel.
        note: what the reader said of the files; empty if nothing.
    """

    case: str
    slices: int
    rows: int
    columns: int
    slice_spacing_mm: float
    row_spacing_mm: float
    column_spacing_mm: float
    orientation: str
    tilt_degrees: float
    shear_degrees: float
    header_spacing_error_mm: float
    image_dtype: str
    labels_dtype: str
    whole_hu: bool
    voxels_digest: str
    hu: HuStatistics
    has_labels: bool
    kidney_ml: float
    tumour_ml: float
    kidney_slices: int
    tumour_slices: int
    kidney_at_end: bool
    kidney_hu: HuStatistics | None
    tumour_hu: HuStatistics | None
    note: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` gave, also by way of JSON."""
        nested = {
            name: values[name] and HuStatistics(**{**values[name], "counts": tuple(values[name]["counts"])})
            for name in ("hu", "kidney_hu", "tumour_hu")
        }
        return cls(**{**values, **nested})

    def to_row(self) -> dict[str, Any]:
        """One line of CSV, by the names in `COLUMNS`; the histograms are left out."""
        row = dataclasses.asdict(self)
        for name in ("hu", "kidney_hu", "tumour_hu"):
            statistics = row.pop(name) or {}
            row |= {f"{name}_{part}": statistics.get(part, "") for part in _STATISTICS}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


_STATISTICS = [field.name for field in dataclasses.fields(HuStatistics) if field.name != "counts"]

#: The columns of `fingerprint.csv`, in order.
COLUMNS = [
    column
    for field in dataclasses.fields(Fingerprint)
    for column in (
        [f"{field.name}_{part}" for part in _STATISTICS]
        if field.name in ("hu", "kidney_hu", "tumour_hu")
        else [field.name]
    )
]


def fingerprint_case(case: case_files.Case) -> Fingerprint:
    """Reads a case and measures it, in about the memory of the volume itself.

    Args:
        case: the label map may be missing (KiTS19's test cases have none), the image may not.

    Raises:
        InputError: a file is unreadable, the image is missing, or image and label map differ in shape or position.
    """
    if case.labels_path.exists():
        image, label_map = case_files.load_case(case)
    elif case.image_path.exists():
        image, label_map = images.read_image(case.image_path), None
    else:
        raise InputError(f"{case.image_path}: no such file; expected the image of {case.name}")
    return fingerprint(case.name, image, label_map)


def fingerprint(name: str, image: volumes.Volume, label_map: volumes.Volume | None) -> Fingerprint:
    """Measures a case that is already read.

    Args:
        name: the case's.
        image: `(slices, rows, columns)` in HU.
        label_map: the same grid, values 0, 1, 2; None where there is none.
    """
    voxels, whole_hu = _canonical(image.array)
    measured = _measure(voxels, None if label_map is None else label_map.array)
    spacing_mm = image.spacing_mm
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    num_voxels = {label: int(histogram.counts.sum()) for label, histogram in measured.histograms.items()}
    shows = {
        region: np.any([measured.shows[label] for label in members], axis=0)
        for region, members in labels.REGIONS.items()
    }
    volumes_ml = {
        region: sum(num_voxels[label] for label in members) * voxel_ml for region, members in labels.REGIONS.items()
    }
    return Fingerprint(
        case=name,
        **dict(zip(("slices", "rows", "columns"), image.array.shape, strict=True)),
        **dict(zip(("slice_spacing_mm", "row_spacing_mm", "column_spacing_mm"), spacing_mm, strict=True)),
        orientation=image.geometry.orientation,
        tilt_degrees=placement.tilt_degrees(image.geometry.affine),
        shear_degrees=placement.shear_degrees(image.geometry.affine),
        header_spacing_error_mm=_header_spacing_error(image.geometry),
        image_dtype=_stored_dtype(image),
        labels_dtype="" if label_map is None else _stored_dtype(label_map),
        whole_hu=whole_hu,
        voxels_digest=measured.digest,
        hu=measured.histograms[None].statistics(),
        has_labels=label_map is not None,
        kidney_ml=volumes_ml["kidney"],
        tumour_ml=volumes_ml["tumour"],
        kidney_slices=int(shows["kidney"].sum()),
        tumour_slices=int(shows["tumour"].sum()),
        kidney_at_end=bool(shows["kidney"][[0, -1]].any()),
        kidney_hu=measured.histograms[labels.KIDNEY].statistics(),
        tumour_hu=measured.histograms[labels.TUMOUR].statistics(),
        note=" ".join(volume.note for volume in (image, label_map) if volume is not None and volume.note),
    )


class _Histogram:
    """Counts every whole HU of the int16 range, block by block; extremes and sum stay exact for fractions too."""

    def __init__(self) -> None:
        self.counts = np.zeros(1 << 16, np.int64)
        self.fractions: list[tuple[float, float, float]] = []

    def add(self, values: np.ndarray) -> None:
        if not values.size:
            return
        if values.dtype != np.int16:
            self.fractions.append((float(values.min()), float(values.max()), float(values.sum(dtype=np.float64))))
            values = np.clip(np.rint(values), _INT16.min, _INT16.max).astype(np.int16)
        # seen as uint16 for bincount, in which negative values come after the positive ones
        counts = np.bincount(values.ravel().view(np.uint16), minlength=len(self.counts))
        self.counts += np.roll(counts, -_INT16.min)

    def statistics(self) -> HuStatistics | None:
        """The statistics; None without a voxel."""
        num_voxels = int(self.counts.sum())
        if not num_voxels:
            return None
        present = np.flatnonzero(self.counts) + _INT16.min
        lowest, highest, total = present[0], present[-1], (present * self.counts[present - _INT16.min]).sum()
        if self.fractions:
            lows, highs, totals = zip(*self.fractions, strict=True)
            lowest, highest, total = min(lows), max(highs), sum(totals)
        cumulative = np.cumsum(self.counts)
        ranks = {name: num_voxels * percent / 100 for name, percent in PERCENTILES.items()}
        below = np.concatenate([[0], cumulative])[np.array(HISTOGRAM_EDGES_HU) - _INT16.min]
        return HuStatistics(
            min=float(lowest),
            max=float(highest),
            mean=float(total) / num_voxels,
            **{name: float(np.searchsorted(cumulative, rank) + _INT16.min) for name, rank in ranks.items()},
            counts=tuple(int(count) for count in np.diff(below)),
        )


@dataclass
class _Measured:
    """What one pass over the voxels gives: histograms by label (None: everything), slices by label, a digest."""

    histograms: dict[int | None, _Histogram]
    shows: dict[int, np.ndarray]
    digest: str


def _measure(voxels: np.ndarray, label_map: np.ndarray | None) -> _Measured:
    """Goes once through image and label map in blocks of slices: files lie across the slices in memory."""
    tissues = (labels.KIDNEY, labels.TUMOUR)
    histograms = {label: _Histogram() for label in (None, *tissues)}
    shows = {label: np.zeros(len(voxels), bool) for label in tissues}
    digest = hashlib.blake2b(f"{voxels.shape}{voxels.dtype.name}".encode(), digest_size=16)
    for number, block in enumerate(contiguous_blocks(voxels, _BLOCK)):
        part = slice(number * _BLOCK, (number + 1) * _BLOCK)
        digest.update(block)
        histograms[None].add(block)
        if label_map is None:
            continue
        block_labels = np.ascontiguousarray(label_map[part])
        for label in tissues if block_labels.any() else ():
            mask = block_labels == label
            histograms[label].add(block[mask])
            shows[label][part] = mask.any(axis=(1, 2))
    return _Measured(histograms=histograms, shows=shows, digest=digest.hexdigest())


def _canonical(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """The voxels as int16 where that loses nothing, and whether all are whole numbers."""
    if array.dtype == np.int16:
        return array, True
    whole = all(np.array_equal(one, np.rint(one)) for one in array)
    fits = array.min() >= _INT16.min and array.max() <= _INT16.max
    return (array.astype(np.int16) if whole and fits else array), whole


def _header_spacing_error(geometry: volumes.Geometry) -> float:
    if geometry.header is None:
        return 0.0
    pixdim = np.abs(np.asarray(geometry.header["pixdim"][1:4], float))
    return float(np.abs(pixdim - np.linalg.norm(geometry.affine[:3, :3], axis=0)).max())


def _stored_dtype(volume: volumes.Volume) -> str:
    header = volume.geometry.header
    return volume.array.dtype.name if header is None else header.get_data_dtype().name
