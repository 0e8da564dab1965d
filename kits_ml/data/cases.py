"""Cases of a folder, in any of the layouts that are known, recognised by what lies there.

KiTS19, KiTS23   case_00000/imaging.nii.gz, segmentation.nii.gz (KiTS23 has `instances/` too, which is not read)
                 or imaging/, a folder of DICOM slices
KiTS21           case_00000/imaging.nii.gz, aggregated_MAJ_seg.nii.gz (and other aggregates, which are not read)
nnU-Net          imagesTr/case_00000_0000.nii.gz, labelsTr/case_00000.nii.gz, dataset.json; see `nnunet`
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml.data import images, nnunet, volumes
from kits_ml.data.partial import sha256_of
from kits_ml.errors import InputError

IMAGE_NAME = "imaging.nii.gz"
DICOM_NAME = "imaging"
LABELS_NAME = "segmentation.nii.gz"
#: KiTS21's majority vote of its annotators.
KITS21_LABELS_NAME = "aggregated_MAJ_seg.nii.gz"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One patient's scan and its label map.

    Attributes:
        name: the folder's name, e.g. `case_00000`.
        image_path, labels_path: where the files should be; `load_case` says what is missing.
        label_values: KiTS value by the label map's value; None where it has KiTS's own.
        held_out: whether its folder keeps it apart for testing (nnU-Net's `imagesTs`).
    """

    name: str
    image_path: Path
    labels_path: Path
    label_values: Mapping[int, int] | None = None
    held_out: bool = False

    @property
    def renumbers(self) -> bool:
        """Whether the label map's numbers are other than KiTS's own."""
        return any(value != kits for value, kits in (self.label_values or {}).items())

    def source_files(self) -> list[Path]:
        """The files it consists of, those that are there."""
        return [file for path in (self.image_path, self.labels_path) for file in images.image_files(path)]

    def digest(self, sha256: Callable[[Path], str] = sha256_of) -> str:
        """Digest of all files' bytes, and of what their labels mean where that is not KiTS's own, hexadecimal.

        A missing file counts as none. So the same files have the same digest in any layout.

        Args:
            sha256: gives a file's SHA-256, from `manifest.Manifest` where not every file shall be read.
        """
        digest = hashlib.blake2b(digest_size=16)
        for path in (self.image_path, self.labels_path):
            digest.update(b"\0file\0")
            for file in images.image_files(path):
                digest.update(sha256(file).encode())
        if self.renumbers:
            digest.update(b"\0labels\0" + json.dumps(sorted(self.label_values.items())).encode())
        return digest.hexdigest()


def find_cases(folder: str | Path) -> list[Case]:
    """Lists the cases of a folder, by name.

    In the layouts of KiTS, every visible subfolder that holds an image or a segmentation, or whose name begins with
    `case_`, is a case. Of nnU-Net's test images, those with labels are cases, held out.

    Raises:
        InputError: the folder is missing or holds no case, or nnU-Net's description of it cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected cases as case_00000/{IMAGE_NAME}")
    cases = _nnunet_cases(folder) if nnunet.is_dataset(folder) else _kits_cases(folder)
    if not cases:
        raise InputError(f"{folder}: no cases found; expected folders such as case_00000/{IMAGE_NAME}{_hint(folder)}")
    return cases


def _nnunet_cases(folder: Path) -> list[Case]:
    dataset = nnunet.read_dataset(folder)
    if dataset.num_unlabelled:
        log.info("%s: %d test images without labels are left out", folder, dataset.num_unlabelled)
    return [
        Case(
            name=name,
            image_path=found.image,
            labels_path=found.labels,
            label_values=dataset.label_values,
            held_out=found.held_out,
        )
        for name, found in sorted(dataset.files.items())
    ]


def _kits_cases(folder: Path) -> list[Case]:
    cases = []
    for child in sorted(folder.iterdir()):
        labels = [child / name for name in (LABELS_NAME, KITS21_LABELS_NAME) if (child / name).exists()]
        case = Case(
            name=child.name, image_path=_image_path(child), labels_path=labels[0] if labels else child / LABELS_NAME
        )
        holds_files = case.image_path.exists() or case.labels_path.exists()
        if child.is_dir() and not child.name.startswith(".") and (holds_files or child.name.startswith("case_")):
            cases.append(case)
    return cases


def _hint(folder: Path) -> str:
    """Names a folder below that does hold cases: a repository of KiTS, or nnU-Net's folder of data sets."""
    for child in sorted(child for child in folder.iterdir() if child.is_dir()):
        if nnunet.is_dataset(child) or next(child.glob(f"case_*/{IMAGE_NAME}"), None):
            return f"; {child} holds some"
    return ""


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
    label_map = volumes.read_label_map(case.labels_path, mapping=case.label_values)
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
