"""Scores a folder of predictions against a folder of references."""

from __future__ import annotations

import logging
from pathlib import Path

from kits_ml.data import images, volumes
from kits_ml.data.cases import IMAGE_NAME, check_same_grid
from kits_ml.errors import InputError
from kits_ml.evaluation.measured import measure_case
from kits_ml.evaluation.tables import CaseScores
from kits_ml.workers import run_cases

log = logging.getLogger(__name__)

#: A label map inside a case's folder.
SEGMENTATION = "segmentation.nii.gz"


def find_label_maps(folder: str | Path) -> dict[str, Path]:
    """The label maps of a folder by case: `case_00000.nii.gz` (or `.nii`), or `case_00000/segmentation.nii.gz`.

    Args:
        folder: where to look; deeper folders are not searched, hidden files are not seen.

    Raises:
        InputError: no such folder, nothing in it, or a case that is there twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with label maps")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        name, label_map = path.name, path
        if path.is_dir():
            label_map = path / SEGMENTATION
        else:
            suffix = next((end for end in volumes.NIFTI_SUFFIXES if path.name.endswith(end)), None)
            if suffix is None:
                continue
            name = path.name.removesuffix(suffix)
        if not label_map.is_file():
            continue
        if name in found:
            both = f"{found[name].relative_to(folder)} and {label_map.relative_to(folder)}"
            raise InputError(f"{folder}: found {both}; expected one label map a case")
        found[name] = label_map
    if not found:
        raise InputError(f"{folder}: no label maps; expected <case>.nii.gz or <case>/{SEGMENTATION}")
    return found


def score_files(
    case: str, *, reference: str | Path, prediction: str | Path | None, surfaces: bool = True
) -> CaseScores:
    """Scores one case from its files, on the reference's grid and with its spacing.

    Args:
        case: its name.
        reference: label map of the reference.
        prediction: label map of the prediction; None where there is none, which scores worst.
        surfaces: whether to measure surfaces too.

    Raises:
        InputError: an unreadable file, or a prediction that does not lie on the reference's voxels.
    """
    true = volumes.read_label_map(reference)
    pred = None
    if prediction is not None:
        _check_grid(Path(prediction), expected=true.geometry)
        pred = volumes.read_label_map(prediction).array
    image = read_image_of(true)
    return measure_case(
        case,
        label_map_true=true.array,
        label_map_pred=pred,
        spacing_mm=true.spacing_mm,
        image=None if image is None else image.array,
        surfaces=surfaces,
    )


def read_image_of(reference: volumes.Volume) -> volumes.Volume | None:
    """The scan that lies beside a reference, as in the layouts of KiTS; None where there is none that fits.

    Only contrast and pictures need it, so a scan that cannot be used is said and costs no scores.
    """
    path = reference.path.with_name(IMAGE_NAME)
    if reference.path.name != SEGMENTATION or not path.exists():
        return None
    try:
        image = images.read_image(path)
        check_same_grid(image, reference)
    except InputError as error:
        log.warning("no contrast and no pictures of %s: %s", reference.path.parent.name, error)
        return None
    return image


def score_folders(
    predictions: str | Path,
    references: str | Path,
    *,
    num_workers: int = 1,
    surfaces: bool = True,
) -> tuple[list[CaseScores], dict[str, str]]:
    """Scores every reference of a folder; see `find_label_maps` for how files are named.

    A reference without prediction gets the worst scores and `missing_prediction`. A prediction without reference
    and a case that cannot be scored are failures: the others go on.

    Args:
        predictions: folder of predicted label maps.
        references: folder of reference label maps.
        num_workers: worker processes; 1 works in this process.
        surfaces: whether to measure surfaces too.

    Returns:
        The scores, in order of the cases' names, and the messages of the cases that failed.

    Raises:
        InputError: a folder without label maps.
    """
    predicted, expected = find_label_maps(predictions), find_label_maps(references)
    failures = {
        case: f"{path}: prediction without reference; expected {case} in {references}"
        for case, path in predicted.items()
        if case not in expected
    }
    tasks = {
        case: {"case": case, "reference": path, "prediction": predicted.get(case), "surfaces": surfaces}
        for case, path in sorted(expected.items())
    }
    done, failed = run_cases(score_files, tasks, num_workers=num_workers, description="score")
    return list(done.values()), failures | failed


def _check_grid(prediction: Path, *, expected: volumes.Geometry) -> None:
    found = volumes.read_geometry(prediction)
    if found.shape != expected.shape:
        raise InputError(f"{prediction}: found shape {found.shape}, expected the reference's {expected.shape}")
    if not volumes.same_grid(found, expected):
        raise InputError(
            f"{prediction}: found affine {found.affine.round(4).tolist()}, "
            f"expected the reference's {expected.affine.round(4).tolist()}"
        )
