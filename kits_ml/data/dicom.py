"""A folder of DICOM slices as a volume in HU.

pydicom reads the files. SimpleITK and dicom2nifti would give a volume in one call, but they sort, average the
spacing and fill in on their own, and a segmentation on the wrong grid is worse than none. So here every header is
looked at first (`dicom_stack`), and what does not make one whole, straight, even CT series is refused by name.

Two passes: all headers without pixels, then one slice after the other into the volume; so memory holds the volume
and a slice. Compressed pixels need a decoder: RLE and deflate come with pydicom, 8-bit JPEG and JPEG 2000 with
pillow, and the extra `kits_ml[dicom]` (GDCM) adds the rest, such as JPEG Lossless and JPEG-LS.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from pydicom import pixels, uid
from pydicom.errors import InvalidDicomError

from kits_ml.data.dicom_files import is_dicom, series_files
from kits_ml.data.dicom_stack import UNREADABLE, Slice, parse_slice, stack_slices, text_value
from kits_ml.data.volumes import Volume
from kits_ml.errors import InputError, first_line

#: Objects that come along with a series but hold none of its slices.
_COMPANIONS = {"SEG", "SR", "KO", "PR", "REG", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD"}

#: Without Rows, an object of these classes is a slice cut short; one of another class has no pixels by nature.
_CT_CLASSES = {uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage}

#: A file with another suffix is no slice unless it says so itself. (Archives number their files: "IM.12".)
_SLICE_SUFFIXES = {"", ".dcm", ".dicom", ".ima"}

#: Highest value of a 12-bit CT. Padding above it was not measured and would shine like metal.
_HIGHEST_CT_HU = 3071
_AIR_HU = -1024

_TAGS = [
    *("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation", "PixelSpacing"),
    *("ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "GantryDetectorTilt"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    "PerFrameFunctionalGroupsSequence",
]


def read_series(folder: str | Path) -> Volume:
    """Reads the one CT series of a folder.

    Subfolders count; hidden files, DICOMDIR, files that are no DICOM by their suffix, localizers and objects without
    slices (SEG, SR, ...) do not. Padding keeps its value, which is mostly at or below air (-1024, -2000, ...); where
    it would lie above 3071 HU, beyond all that a 12-bit CT can measure, it becomes -1024.

    Args:
        folder: holds the slices, one a file, in any order and under any names.

    Returns:
        The volume, int16 where the rescaling is by whole numbers and all values fit, else float32. Its geometry's
        grid has axes `(columns, rows, slices)`, slices along the normal. Its note says what was left out.

    Raises:
        InputError: no CT series, more than one, or slices that are unreadable or do not make a volume.
    """
    folder = Path(folder)
    with warnings.catch_warnings():
        # pydicom warns of every value that bends the standard; what matters here is checked here
        warnings.simplefilter("ignore")
        headers, note = _select(_read_headers(folder), folder)
        slices = []
        for path, header in headers:
            _check_decodable(header, path)
            slices.append(parse_slice(header, path))
        ordered, geometry, stack_note = stack_slices(slices, folder)
        stack = _read_voxels(ordered)
    array = geometry.to_house(stack.transpose(2, 1, 0))  # (slices, rows, columns) -> file order -> house order
    return Volume(
        array=array,
        geometry=geometry,
        path=folder,
        note="; ".join(filter(None, (note, stack_note))),
        slice_paths=tuple(one.path for one in ordered),
    )


def _read_headers(folder: Path) -> list[tuple[Path, pydicom.Dataset]]:
    headers, others = [], []
    for path in series_files(folder):
        header = _read_header(path)
        if header is None:
            others.append(path.name)
        else:
            headers.append((path, header))
    if not headers:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        found = f"no DICOM among its {len(others)} files ({named})" if others else "no DICOM files"
        raise InputError(f"{folder}: {found}; expected a folder with the slices of one CT series")
    return headers


def _read_header(path: Path) -> pydicom.Dataset | None:
    """The header without pixels; None for a directory, or a file that does not claim to be a slice."""
    claims = path.suffix.lower() in _SLICE_SUFFIXES or path.suffix[1:].isdigit()
    if not claims and not is_dicom(path):
        return None
    try:
        header = read_file(path, stop_before_pixels=True, specific_tags=_TAGS)
        known = "SOPClassUID" in header or "Modality" in header
        if header.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
            return None
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable DICOM file ({first_line(error)})") from error
    if not known:
        raise InputError(f"{path}: not a DICOM file; expected a slice of a CT series")
    return header


def read_file(path: Path, **options) -> pydicom.Dataset:
    """Reads also files that lack the preamble, as older archives write them."""
    try:
        dataset = pydicom.dcmread(path, **options)
    except InvalidDicomError:
        dataset = pydicom.dcmread(path, force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little_endian = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _select(
    headers: list[tuple[Path, pydicom.Dataset]], folder: Path
) -> tuple[list[tuple[Path, pydicom.Dataset]], str]:
    """The headers of the only CT series, and a note on what was left out."""
    images, left_out = [], Counter()
    for path, header in headers:
        modality = text_value(header, "Modality", path)
        sop_class = text_value(header, "SOPClassUID", path)
        if modality in _COMPANIONS or ("Rows" not in header and sop_class not in _CT_CLASSES):
            left_out[modality or "unknown"] += 1
        elif not modality:
            raise InputError(f"{path}: no Modality, expected CT; is the file truncated?")
        elif "LOCALIZER" in text_value(header, "ImageType", path).upper():  # PS3.3 C.8.2.1.1.1
            left_out["localizer"] += 1
        else:
            images.append((path, header))
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    if not images:
        raise InputError(f"{folder}: no CT slices, only {listed}; expected the slices of one CT series")
    series: dict[str, list[tuple[Path, pydicom.Dataset]]] = {}
    for path, header in images:
        series.setdefault(text_value(header, "SeriesInstanceUID", path), []).append((path, header))
    if len(series) > 1:
        raise InputError(
            f"{folder}: {len(series)} series ({_describe(series, folder)}), expected one; "
            "give a folder that holds only the wanted one"
        )
    for path, header in images:
        if (modality := text_value(header, "Modality", path)) != "CT":
            raise InputError(f"{path}: Modality {modality}, expected CT")
    return images, f"{folder}: left out {listed}" if listed else ""


def _describe(series: dict[str, list[tuple[Path, pydicom.Dataset]]], folder: Path, most: int = 5) -> str:
    parts = []
    for number, members in sorted(series.items(), key=lambda item: -len(item[1]))[:most]:
        path, header = members[0]
        description = text_value(header, "SeriesDescription", path) or "without description"
        count = f"{len(members)} {text_value(header, 'Modality', path)} slice{'s' * (len(members) > 1)}"
        parts.append(f"{count} {description!r} {number} from {path.relative_to(folder).as_posix()}")
    return "; ".join(parts) + ("; ..." if len(series) > most else "")


def _check_decodable(header: pydicom.Dataset, path: Path) -> None:
    syntax = header.file_meta.TransferSyntaxUID
    try:
        available = pixels.get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise InputError(f"{path}: transfer syntax {syntax.name}, expected one of a CT image") from error
    if not available:
        raise InputError(
            f"{path}: pixels compressed as {syntax.name}, for which no decoder is installed; "
            "pip install 'kits_ml[dicom]' adds one"
        )


def _read_voxels(ordered: list[Slice]) -> np.ndarray:
    """HU as `(slices, rows, columns)`."""
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in ordered)
    array = np.empty((len(ordered), *ordered[0].shape), np.int16 if whole else np.float32)
    limits = np.iinfo(np.int16)
    for index, one in enumerate(ordered):
        slice_hu = _read_slice(one, np.int64 if whole else np.float64)
        if array.dtype == np.int16 and not limits.min <= slice_hu.min() <= slice_hu.max() <= limits.max:
            array = array.astype(np.float32)
        array[index] = slice_hu
    return array


def _read_slice(one: Slice, dtype: type[np.generic]) -> np.ndarray:
    """HU of one slice, `(rows, columns)`: DICOM PS3.3 C.11.1.1.2."""
    try:
        dataset = read_file(one.path)
        stored = pixels.pixel_array(dataset)
    except UNREADABLE as error:
        raise InputError(f"{one.path}: truncated or damaged pixels ({first_line(error)})") from error
    if stored.shape != one.shape:
        raise InputError(f"{one.path}: pixels of shape {stored.shape}, expected {one.shape} as its header says")
    slice_hu = stored.astype(dtype) * dtype(one.slope) + dtype(one.intercept)
    if one.padding:
        low, high = one.padding
        slice_hu[(stored >= low) & (stored <= high) & (slice_hu > _HIGHEST_CT_HU)] = _AIR_HU
    return slice_hu
