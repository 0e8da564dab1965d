"""The program of the clean process: loads a model as anyone would, who has nothing but its folder and requirements.

It is run by path, without Python's environment variables, and imports nothing of kits_ml: what the model needs of it
comes with the model. Packages that the model's requirements do not name, directly or by what they require themselves,
are hidden, so that a requirement that was forgotten is missed here and not on somebody's machine.

    python -E -P clean_child.py REQUEST.json ANSWER.json
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Set
from pathlib import Path

PACKAGE = "kits_ml"

#: Calls that are timed, unless they have taken so many seconds before.
TIMED_CALLS = 4
MAX_TIMED_S = 120.0


class Hidden(importlib.abc.MetaPathFinder):
    """Refuses imports as a machine would on which nothing else is installed.

    Args:
        names: of top-level packages.
    """

    def __init__(self, names: Set[str]):
        self.names = names

    def find_spec(self, fullname, path=None, target=None):
        name = fullname.partition(".")[0]
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}: the model's requirements do not name it", name=name)


def installed_by(requirements: Iterable[str]) -> set[str]:
    """The distributions that pip would install for some requirements, with normalised names.

    Raises:
        RuntimeError: one of the requirements is not installed here, or in another version.
    """
    from packaging.requirements import Requirement

    found: set[tuple[str, frozenset[str]]] = set()
    direct = [Requirement(line) for line in requirements]
    waiting = list(direct)
    while waiting:
        one = waiting.pop()
        key = (_normal(one.name), frozenset(one.extras))
        if key in found:
            continue
        try:
            distribution = importlib.metadata.distribution(one.name)
        except importlib.metadata.PackageNotFoundError:
            if one in direct:
                raise RuntimeError(f"requirement {one}: not installed here") from None
            continue
        if one in direct and not one.specifier.contains(distribution.version, prereleases=True):
            raise RuntimeError(f"requirement {one}: version {distribution.version} is installed here")
        found.add(key)
        for text in distribution.requires or ():
            required = Requirement(text)
            extras = one.extras or {""}
            if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(required)
    return {name for name, _ in found}


def hide_all_but(distributions: Set[str]) -> None:
    """Hides the packages of all other distributions, and an installed kits_ml that stands before the model's own."""
    names = {
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if not {_normal(owner) for owner in owners} & distributions
    }
    sys.meta_path[:] = [
        one for one in sys.meta_path if "editable" not in str(one).lower() or one.find_spec(PACKAGE, None) is None
    ]
    sys.meta_path.insert(0, Hidden(names - {PACKAGE}))


def measure(request: dict) -> dict:
    """Loads, predicts and turns; what `gate_checks.CleanRun` holds.

    Args:
        request: `model`, the folder; `volumes`, an npz file with `image` and `spacing_mm`, `oblique`, its `affine`
            in the house's axis order; `house`, its axis codes; `orientations` to turn it to.
    """
    import mlflow
    import numpy as np

    volumes = np.load(request["volumes"])
    started = time.perf_counter()
    model = mlflow.pyfunc.load_model(request["model"])
    load_s = time.perf_counter() - started
    image = volumes["image"].astype(np.float32)
    spacing_mm = volumes["spacing_mm"].tolist()
    label_map = model.predict(image, params={"spacing_mm": spacing_mm})  # the first call traces the network
    if label_map.shape != image.shape or label_map.dtype != np.uint8:
        raise RuntimeError(f"label map of shape {label_map.shape} and type {label_map.dtype}, expected {image.shape}")
    predict_s = best_time_s(lambda: model.predict(image, params={"spacing_mm": spacing_mm}))
    own = Path(sys.modules[PACKAGE].__file__).resolve()
    return {
        "shape": list(image.shape),
        "load_s": load_s,
        "seconds_per_slice": predict_s / len(image),
        "differences": differences(model, volumes["oblique"].astype(np.float32), volumes["affine"], request),
        "code_from_model": own.is_relative_to(Path(request["model"]).resolve()),
        "peak_memory_mb": peak_memory_mb(),
    }


def best_time_s(predict: Callable[[], object]) -> float:
    """What the quickest of several calls takes by the clock, seconds.

    By the clock, for a model that waits makes its users wait; the quickest, for other processes only ever add to it.
    """
    found: list[float] = []
    while len(found) < TIMED_CALLS and sum(found) < MAX_TIMED_S:
        started = time.perf_counter()
        predict()
        found.append(time.perf_counter() - started)
    return min(found)


def differences(model, image, affine, request: dict) -> dict[str, float]:
    """How far the probabilities of a volume are from those of the same volume turned to other orientations.

    The turned volumes go the way of a file: nibabel turns image and affine, and the codes are read off the affine.
    """
    import nibabel as nib
    import numpy as np
    from nibabel import orientations

    expected = _probabilities(model, image, affine, request["house"])
    found = {}
    for codes in request["orientations"]:
        there = orientations.ornt_transform(
            orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes))
        )
        turned = nib.Nifti1Image(image, affine).as_reoriented(there)
        read = "".join(nib.aff2axcodes(turned.affine))
        given = _probabilities(model, np.asarray(turned.dataobj, np.float32), turned.affine, read)
        back = orientations.ornt_transform(
            orientations.io_orientation(turned.affine), orientations.io_orientation(affine)
        )
        given = np.stack([orientations.apply_orientation(one, back) for one in given])
        same = given.shape == expected.shape
        found[codes] = float(np.abs(given - expected).max()) if same else float("nan")
    return found


def peak_memory_mb() -> float | None:
    """The most memory that this process has held; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # bytes there, KiB elsewhere


def _probabilities(model, image, affine, codes: str):
    import nibabel as nib

    spacing_mm = [float(size) for size in nib.affines.voxel_sizes(affine)]
    params = {"orientation": codes, "spacing_mm": spacing_mm, "probabilities": True}
    return model.predict(image, params=params)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Does what the request asks for, and writes the answer."""
    warnings.simplefilter("ignore")
    request_path, answer_path = map(Path, sys.argv[1:3])
    request = json.loads(request_path.read_text())
    lines = (Path(request["model"]) / "requirements.txt").read_text().splitlines()
    hide_all_but(installed_by(line for line in lines if line.strip() and not line.startswith("#")))
    answer_path.write_text(json.dumps(measure(request)))


if __name__ == "__main__":
    main()
