"""The folder of an evaluation: the files it has there, and how a new one takes the place of an old one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from kits_ml.errors import InputError
from kits_ml.evaluation import aggregates, evidence, report, selftest, summary, tables

BOX_PLOT_PNG = "dice.png"
PREDICTIONS = "predictions"
RANKS = ("worst", "median", "best")

_SUFFIX = ".nii.gz"


def overlay_path(folder: Path, rank: str) -> Path:
    """The picture of the worst, median or best case."""
    return folder / f"overlay_{rank}.png"


def prediction_path(folder: Path, case: str) -> Path:
    """The label map of a case that a model segmented."""
    return folder / PREDICTIONS / f"{case}{_SUFFIX}"


def files_of(folder: Path) -> list[Path]:
    """The files of an evaluation in its folder, those that are there; without the label maps."""
    # with the scores first and the cases' digests after them, no moment has digests beside scores of other cases
    names = [tables.SCORES_CSV, evidence.EVALUATION_JSON, summary.CASES_CSV, aggregates.SUMMARY_JSON]
    names += [selftest.SELFTEST_CSV, report.REPORT_HTML, BOX_PLOT_PNG]
    paths = [folder / name for name in names] + [overlay_path(folder, rank) for rank in RANKS]
    return [path for path in paths if path.exists()]


def check_no_label_maps(folder: Path, cases: Iterable[str]) -> None:
    """Raises an `InputError` where the label map of a case would take the place of one that is there."""
    for case in cases:
        path = prediction_path(folder, case)
        if path.exists():
            raise InputError(f"{path}: exists; expected a new folder, or --overwrite true")


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A hidden folder in the output folder for an evaluation that may still fail; gone in the end.

    Neither folder is made before something is written. It lies inside, for the output may be all that can be written.
    """
    place = output / f".evaluation.{os.getpid()}.partial"
    shutil.rmtree(place, ignore_errors=True)  # of a killed process: in containers all have the same number
    there = output.exists()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if not there:
            with contextlib.suppress(OSError):  # not empty, or never made
                output.rmdir()


def put_in_place(place: Path, output: Path, *, overwrite: bool, inputs: Collection[Path] = ()) -> None:
    """Moves a finished evaluation from where it was staged to its folder.

    Args:
        place: see `staged`.
        output: the folder.
        overwrite: remove the evaluation that is there first: the files of `files_of`, and the label maps of the cases
            that its `evaluation.json` names, for a model wrote those. Whatever else is there stays.
        inputs: label maps that were scored; they stay too.
    """
    if overwrite:
        kept = {path.resolve() for path in inputs}
        old = [path for path in (*_label_maps_of(output), *files_of(output)) if path.resolve() not in kept]
        for path in old:
            if path.name != tables.SCORES_CSV:  # replaced below: while it is there, the folder is known as taken
                path.unlink()
        with contextlib.suppress(OSError):  # not empty, or not there
            (output / PREDICTIONS).rmdir()
    new = [*files_of(place), *sorted((place / PREDICTIONS).glob(f"*{_SUFFIX}"))]
    for path in new:
        target = output / path.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _label_maps_of(folder: Path) -> list[Path]:
    """The label maps that the model evaluation in a folder wrote."""
    try:
        names = set(json.loads((folder / evidence.EVALUATION_JSON).read_text())["case_digests"])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # of folders, or none at all
    return [
        path
        for path in sorted((folder / PREDICTIONS).glob(f"*{_SUFFIX}"))
        if path.name.removesuffix(_SUFFIX) in names
    ]
