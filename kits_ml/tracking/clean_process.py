"""Measures a registered model in a process that has nothing but the model; see `clean_child`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kits_ml.data import phantom
from kits_ml.data.volumes import HOUSE_ORIENTATION, kits_geometry
from kits_ml.evaluation.gate_checks import CleanRun
from kits_ml.tracking import clean_child

#: Rows and columns of the volume that time and memory are measured on: what nearly every CT has.
MATRIX = (512, 512)

#: Of the volume that is turned: small, and every axis of another length, so that none can take another's place.
OBLIQUE_SHAPE = (5, 96, 80)
OBLIQUE_DEGREES = (12.0, -9.0, 7.0)
#: What scanners and programs write, and one with every axis elsewhere.
ORIENTATIONS = ("RAS", "LPS", "SAL", "PIR")


def run_clean(folder: Path, *, num_slices: int, timeout_s: float, python: str = sys.executable) -> CleanRun | str:
    """Loads a model in a clean process and measures it, on the CPU.

    Args:
        folder: MLflow's, with its `MLmodel`.
        num_slices: of the phantom volume that time and memory are measured on.
        timeout_s: after which the process is given up.
        python: the interpreter, which decides what is installed.

    Returns:
        What was found; or one line that says why nothing was.
    """
    with tempfile.TemporaryDirectory() as place:
        request, answer = Path(place) / "request.json", Path(place) / "answer.json"
        volumes = Path(place) / "volumes.npz"
        _write_volumes(volumes, num_slices)
        content = {"model": str(folder.resolve()), "volumes": str(volumes)}
        request.write_text(
            json.dumps({**content, "house": HOUSE_ORIENTATION, "orientations": list(ORIENTATIONS)}),
        )
        command = [python, "-E", "-P", clean_child.__file__, str(request), str(answer)]
        try:
            done = subprocess.run(
                command, cwd=place, env=_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:g} s"
        if done.returncode or not answer.exists():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            return said[-1].strip()[:500] if said else f"ended with code {done.returncode} and said nothing"
        found = json.loads(answer.read_text())
    return CleanRun(**{**found, "shape": tuple(found["shape"])})


def oblique_affine(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The voxel-to-world matrix of a volume in the house's axis order whose gantry was tilted about all three axes.

    The angles are small enough that each axis stays nearest to its own direction.
    """
    rotation = np.eye(3)
    for axis, degrees in enumerate(OBLIQUE_DEGREES):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = cos
        turn[first, second], turn[second, first] = -sin, sin
        rotation = turn @ rotation
    affine = kits_geometry(shape, spacing_mm).affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (-31.0, 47.0, 1203.0)
    return affine


def _write_volumes(path: Path, num_slices: int) -> None:
    large = phantom.generate_case(seed=0, index=0, distribution="small", num_slices=num_slices, shape=MATRIX)
    small = phantom.generate_case(
        seed=0, index=1, distribution="small", num_slices=OBLIQUE_SHAPE[0], shape=OBLIQUE_SHAPE[1:]
    )
    np.savez(
        path,
        image=large.image,
        spacing_mm=np.array(large.spacing_mm),
        oblique=small.image,
        affine=oblique_affine(small.image.shape, small.spacing_mm),
    )


def _environment() -> dict[str, str]:
    """This process's, without what would log to its run, and without its GPU, which a training may hold whole."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KERAS_"))}
    return {**kept, "CUDA_VISIBLE_DEVICES": "-1"}
