"""A small CT series in files, whole or with a fault; what the tests of DICOM are made of."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from kits_ml.data import dicom
from kits_ml.errors import InputError

SHAPE = (4, 5, 6)
SPACING_MM = (3.0, 0.7, 0.8)
#: Directions of a row and of a column in LPS, as scanners and reformats write them.
ACQUISITIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial, prone": ((-1, 0, 0), (0, -1, 0)),
    "axial, rows and columns swapped": ((0, 1, 0), (1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "sagittal, feet up": ((0, -1, 0), (0, 0, 1)),
    "oblique": ((0.96, 0.28, 0), (-0.28, 0.96, 0)),
}


def stored_values(shape=SHAPE) -> np.ndarray:
    """Slices in the order of their normal; values 1 to 120 and one of 4000."""
    stored = np.arange(1, 1 + np.prod(shape), dtype=np.int16).reshape(shape)
    stored[0, 0, 0] = 4000
    return stored


def ct_slice(stored: np.ndarray, index: int, *, directions=ACQUISITIONS["axial"], spacing_mm=SPACING_MM) -> Dataset:
    """A CT slice; the stack begins at (-10, -20, -30) and HU are 1024 less than stored."""
    slices_mm, rows_mm, columns_mm = spacing_mm
    along, down = np.array(directions, float)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
    ds.SeriesInstanceUID, ds.SeriesDescription, ds.Modality = "1.2.3", "abdomen venous", "CT"
    ds.ImageType, ds.InstanceNumber, ds.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], 7, "HFS"
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelSpacing, ds.SliceThickness = [rows_mm, columns_mm], slices_mm
    ds.ImageOrientationPatient = [*along, *down]
    ds.ImagePositionPatient = [*(np.array([-10.0, -20, -30]) + index * slices_mm * np.cross(along, down))]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = stored.astype("<i2").tobytes()
    return ds


def write_series(folder: Path, *, shape=SHAPE, change=None, **options) -> Path:
    """Writes a folder of slices named against their order; `change(ds, index)` may edit each, or drop it (True)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(stored_values(shape)):
        ds = ct_slice(one, index, **options)
        if change is None or not change(ds, index):
            ds.save_as(folder / f"{99 - index}.dcm", enforce_file_format=True)
    return folder


def is_refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dicom.read_series(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def having(keyword, value, *, only=None):
    def change(ds, index):
        if only is None or index == only:
            setattr(ds, keyword, value)

    return change
