"""A label map as a DICOM Segmentation that opens with the series it was made from.

One binary segment a label, without overlap, as in the label map: the kidney segment leaves the tumour out. Each frame
refers to the source slice it lies on; slices without a label have no frame, unless none has one. highdicom writes it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

import kits_ml
from kits_ml import files
from kits_ml.data.dicom import read_file
from kits_ml.data.dicom_stack import UNREADABLE
from kits_ml.data.volumes import Volume
from kits_ml.errors import InputError, first_line
from kits_ml.labels import KIDNEY, LABEL_COLOURS, LABEL_NAMES, TUMOUR

#: Tags that must have a value for a segmentation to belong to its series.
_REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
#: Tags that must be there but may be empty (type 2); anonymised files often lack them.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
#: Added to the source's series number, so that the segmentation is listed behind it.
_SERIES_OFFSET = 1000

#: Category, type and region of each segment: DICOM PS3.16, CID 7150 and 7159, SNOMED CT.
_CODES = {
    KIDNEY: (codes.SCT.AnatomicalStructure, codes.SCT.Kidney, None),
    TUMOUR: (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, codes.SCT.Kidney),
}


def check_source(source: Volume) -> None:
    """Looks whether a DICOM SEG could refer to a series, before anything is spent on its segmentation.

    One of a single voxel is made, in memory, so that all that highdicom asks of the headers is asked.

    Args:
        source: the series as `images.read_image` gave it.

    Raises:
        InputError: no DICOM series, or one whose headers lack what binds a segmentation to it.
    """
    headers = _headers(source)
    columns, rows, slices = source.geometry.shape
    stacked = np.zeros((slices, rows, columns), np.uint8)
    stacked[0, 0, 0] = KIDNEY  # of an empty one all frames would be made
    _segmentation(stacked, headers, algorithm_name="kits_ml", algorithm_version="0")


def write_dicom_seg(
    path: str | Path,
    label_map: np.ndarray,
    source: Volume,
    *,
    algorithm_name: str = "kits_ml",
    algorithm_version: str | None = None,
) -> None:
    """Writes a label map as DICOM SEG; the file appears whole or not at all.

    Args:
        path: the file to write, mostly `.dcm`.
        label_map: `(slices, rows, columns)` in the house's axis order, values 0, 1, 2. Without any label the file
            holds an empty frame of each segment for every slice, since a DICOM image needs a frame.
        source: the series as `images.read_image` gave it.
        algorithm_name: of the model; of it and of the version at most 64 characters are kept, in ASCII without
            backslashes, as DICOM allows in any file.
        algorithm_version: of the model; the package's where none is given.

    Raises:
        InputError: a source that is no DICOM series, a label map on another grid, or a series whose headers lack what
            binds a segmentation to it.
    """
    if label_map.shape != source.geometry.house_shape:
        raise InputError(f"label map of shape {label_map.shape}, expected the source's {source.geometry.house_shape}")
    headers = _headers(source)
    # house order -> the series' (columns, rows, slices) -> (slices, rows, columns) as stacked
    stacked = source.geometry.to_file(label_map).transpose(2, 1, 0)
    segmentation = _segmentation(
        np.ascontiguousarray(stacked, np.uint8),
        headers,
        algorithm_name=_long_string(algorithm_name),
        algorithm_version=_long_string(algorithm_version or kits_ml.__version__),
    )
    with files.open_to_write(Path(path)) as stream:
        segmentation.save_as(stream)


def _segmentation(
    stacked: np.ndarray, headers: list[pydicom.Dataset], *, algorithm_name: str, algorithm_version: str
) -> Segmentation:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=algorithm_name, family=codes.DCM.ArtificialIntelligence, version=algorithm_version
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values in the source that bend the standard
            return Segmentation(
                source_images=headers,
                pixel_array=stacked,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(label, algorithm) for label in _CODES],
                series_instance_uid=highdicom.UID(),
                series_number=int(headers[0].get("SeriesNumber") or 0) + _SERIES_OFFSET,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="kits_ml",
                manufacturer_model_name="kits_ml",
                software_versions=kits_ml.__version__,
                device_serial_number="none",
                series_description="Kidney and tumour, research use only",
                content_label="KIDNEY_TUMOUR",
                content_description="Automatic segmentation, not for clinical use",
            )
    except UNREADABLE as error:
        raise InputError(f"{headers[0].filename}: no DICOM SEG can refer to it ({first_line(error)})") from error


def _long_string(text: str) -> str:
    """A text as DICOM's LO holds it (PS3.5, 6.2), whatever the file's character set."""
    text = "".join(one if one.isprintable() and one != "\\" else "?" for one in text)
    return text.encode("ascii", "replace").decode()[:64].strip()


def _segment(label: int, algorithm: highdicom.AlgorithmIdentificationSequence) -> SegmentDescription:
    category, kind, region = _CODES[label]
    return SegmentDescription(
        segment_number=label,
        segment_label=LABEL_NAMES[label],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[region] if region else None,
        display_color=CIELabColor.from_rgb(*LABEL_COLOURS[label]),
    )


def _headers(source: Volume) -> list[pydicom.Dataset]:
    """Of the slices, in the order of the stack."""
    if not source.slice_paths:
        raise InputError(f"{source.path}: not a DICOM series, expected one as source of a DICOM SEG")
    return [_header(one) for one in source.slice_paths]


def _header(path: Path) -> pydicom.Dataset:
    """A slice without its pixels, with empty values where it may have none."""
    try:
        header = read_file(path, stop_before_pixels=True)
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable DICOM file ({first_line(error)})") from error
    for keyword in _REQUIRED:
        if not header.get(keyword):
            raise InputError(f"{path}: no {keyword}, expected one so that a DICOM SEG can refer to the slice")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    return header
