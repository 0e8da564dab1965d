"""Scores a folder of predictions against a folder of references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from kits_ml.data import volumes
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.evaluation.tables import SCORES_CSV, CaseScores, write_scores
from kits_ml.scores import score_case, score_missing

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
    if prediction is None:
        regions = score_missing(true.array, spacing_mm=true.spacing_mm, surfaces=surfaces)
    else:
        _check_grid(Path(prediction), expected=true.geometry)
        pred = volumes.read_label_map(prediction)
        regions = score_case(true.array, pred.array, spacing_mm=true.spacing_mm, surfaces=surfaces)
    return CaseScores(
        case=case,
        regions=regions,
        missing_prediction=prediction is None,
        slice_spacing_mm=true.spacing_mm[0],
    )


def score_folders(
    predictions: str | Path,
    references: str | Path,
    *,
    num_workers: int = 1,
    surfaces: bool = True,
    output: str | Path | None = None,
) -> list[CaseScores]:
    """Scores every reference of a folder; see `find_label_maps` for how files are named.

    A reference without prediction gets the worst scores and `missing_prediction`. A prediction without reference
    and a case that cannot be scored are failures: the others go on, and the error comes at the end.

    Args:
        predictions: folder of predicted label maps.
        references: folder of reference label maps.
        num_workers: worker processes; 1 works in this process.
        surfaces: whether to measure surfaces too.
        output: folder that gets `scores.csv` with the cases that could be scored, failures or not.

    Returns:
        The scores, in order of the cases' names.

    Raises:
        InputError: a folder without label maps.
        CasesFailedError: some cases failed; after `scores.csv` is written.
    """
    predicted, expected = find_label_maps(predictions), find_label_maps(references)
    failures = {
        case: f"{path}: prediction without reference; expected {case} in {references}"
        for case, path in predicted.items()
        if case not in expected
    }
    num_cases = len(expected) + len(failures)
    jobs = {
        case: {"reference": path, "prediction": predicted.get(case), "surfaces": surfaces}
        for case, path in expected.items()
    }
    done: list[CaseScores] = []
    for case, result in tqdm(_run(jobs, num_workers), total=len(jobs), desc="score", unit="case"):
        try:
            done.append(result())
        except InputError as error:
            failures[case] = str(error)
    done.sort(key=lambda scores: scores.case)
    if output is not None:
        write_scores(Path(output) / SCORES_CSV, done)
    if failures:
        raise CasesFailedError(failures, num_cases)
    return done


def _check_grid(prediction: Path, *, expected: volumes.Geometry) -> None:
    found = volumes.read_geometry(prediction)
    if found.shape != expected.shape:
        raise InputError(f"{prediction}: found shape {found.shape}, expected the reference's {expected.shape}")
    if not volumes.same_grid(found, expected):
        raise InputError(
            f"{prediction}: found affine {found.affine.round(4).tolist()}, "
            f"expected the reference's {expected.affine.round(4).tolist()}"
        )


def _run(jobs: dict[str, dict], num_workers: int) -> Iterator[tuple[str, Callable[[], CaseScores]]]:
    """Each case with a function that gives its scores or raises what went wrong, in any order."""
    if num_workers <= 1 or len(jobs) < 2:
        for case, job in jobs.items():
            yield case, lambda case=case, job=job: score_files(case, **job)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(score_files, case, **job): case for case, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result
