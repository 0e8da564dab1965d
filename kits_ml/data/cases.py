"""Cases in the KiTS layout: `case_00000/imaging.nii.gz` with `case_00000/segmentation.nii.gz`.

In place of the image file, a folder `case_00000/imaging/` may hold its DICOM slices.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kits_ml.data import images, volumes
from kits_ml.errors import InputError

IMAGE_NAME = "imaging.nii.gz"
DICOM_NAME = "imaging"
LABELS_NAME = "segmentation.nii.gz"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One patient's scan and its label map.

    Attributes:
        name: the folder's name, e.g. `case_00000`.
        image_path, labels_path: where the files should be; `load_case` says what is missing.
    """

    name: str
    image_path: Path
    labels_path: Path

    def digest(self) -> str:
        """Digest of all files' bytes, hexadecimal; a missing file counts as empty."""
        digest = hashlib.blake2b(digest_size=16)
        for path in (self.image_path, self.labels_path):
            digest.update(b"\0file\0")
            for number, file in enumerate(images.image_files(path)):
                if number:
                    digest.update(b"\0slice\0")
                with file.open("rb") as stream:
                    while block := stream.read(1 << 22):
                        digest.update(block)
        return digest.hexdigest()


def find_cases(folder: str | Path) -> list[Case]:
    """Lists the cases of a folder, by name.

    Every visible subfolder that holds an image or a segmentation, or whose name begins with `case_`, is a case.

    Raises:
        InputError: the folder is missing or holds no case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected cases as case_00000/{IMAGE_NAME}")
    cases = []
    for child in sorted(folder.iterdir()):
        case = Case(name=child.name, image_path=_image_path(child), labels_path=child / LABELS_NAME)
        holds_files = case.image_path.exists() or case.labels_path.exists()
        if child.is_dir() and not child.name.startswith(".") and (holds_files or child.name.startswith("case_")):
            cases.append(case)
    if not cases:
        raise InputError(f"{folder}: no cases found; expected folders such as case_00000/{IMAGE_NAME}")
    return cases


def load_case(case: Case) -> tuple[volumes.Volume, volumes.Volume]:
    """Reads a case's image and label map and checks that they lie on the same voxels.

    Returns:
        The image in HU and the label map (0, 1, 2), both `(slices, rows, columns)`.

    Raises:
        InputError: a file is missing or unreadable, or the two differ in shape or position.
    """
    if case.image_path.is_file() and case.image_path.with_name(DICOM_NAME).is_dir():
        raise InputError(f"{case.image_path}: there is a folder {DICOM_NAME}/ as well, expected one image")
    for path, kind in ((case.image_path, "image"), (case.labels_path, "segmentation")):
        if not path.exists():
            raise InputError(f"{path}: no such file; expected the {kind} of {case.name}")
    image = images.read_image(case.image_path)
    label_map = volumes.read_label_map(case.labels_path)
    check_same_grid(image, label_map)
    return image, label_map


def check_same_grid(first: volumes.Volume, second: volumes.Volume) -> None:
    """Raises an `InputError` that names both files where two volumes differ in shape or position.

    Their files may store the axes in different orders, as a DICOM series and a label map mostly do.
    """
    if first.geometry.house_shape != second.geometry.house_shape:
        raise InputError(
            f"{second.path}: shape {second.geometry.house_shape} (slices, rows, columns), "
            f"expected {first.geometry.house_shape} as in {first.path.name}"
        )
    if not volumes.same_grid(first.geometry, second.geometry):
        raise InputError(
            f"{second.path}: affine {second.geometry.house_affine.round(4).tolist()} of (slices, rows, columns), "
            f"expected {first.geometry.house_affine.round(4).tolist()} as in {first.path.name}"
        )


def _image_path(folder: Path) -> Path:
    """The image's NIfTI file; a folder of DICOM slices where there is only that."""
    nifti, slices = folder / IMAGE_NAME, folder / DICOM_NAME
    return slices if slices.is_dir() and not nifti.exists() else nifti
