"""What every champion must pass, the first one too: checks that need no other model to compare with.

Each is a pure function of what was measured; measuring is `workflows.promote`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kits_ml.config import GateSettings
from kits_ml.evaluation import selftest
from kits_ml.evaluation.evidence import Evidence

#: Largest difference of probabilities between orientations of one volume. They are the same numbers in another order,
#: so anything above rounding is a fault; an axis that is flipped differs by far more.
MAX_DIFFERENCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class CleanRun:
    """What a fresh process found, that had nothing but the model's folder and the packages of its requirements.

    Attributes:
        shape: slices, rows and columns of the volume that time was taken on.
        load_s: seconds to load the model.
        seconds_per_slice: by the clock, of the quickest of several predictions after the first.
        peak_memory_mb: of the whole process; None where the system does not tell.
        code_from_model: whether the package that ran is the one in the model's folder.
        differences: by orientation (axis codes) of an oblique volume, the largest absolute difference of its
            probabilities from those of the same volume in the house's orientation.
    """

    shape: tuple[int, int, int]
    load_s: float
    seconds_per_slice: float
    peak_memory_mb: float | None
    code_from_model: bool
    differences: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the checks judge.

    Attributes:
        selftest: the readings of the metrics in use.
        clean: what the clean process found, or the line that says why it failed.
        evidence: the challenger's scores of all its test cases; None where there are none.
    """

    selftest: Sequence[selftest.Row]
    clean: CleanRun | str
    evidence: Evidence | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check.

    Attributes:
        name: a key of `CHECKS`.
        passed: whether all is well.
        found, expected: in words.
    """

    name: str
    passed: bool
    found: str
    expected: str


_Result = tuple[bool, str, str]


def _check_selftest(measured: Measured, settings: GateSettings) -> _Result:
    wrong = selftest.misread(measured.selftest)
    names = ", ".join(sorted({row.metric for row in wrong}))
    found = f"{len(wrong)} of {len(measured.selftest)} readings wrong" + (f" ({names})" if wrong else "")
    return not wrong and bool(measured.selftest), found, "metrics that read what theory says"


def _check_clean_process(measured: Measured, settings: GateSettings) -> _Result:
    expected = "loads and predicts in a fresh process with its own code and requirements alone"
    if isinstance(measured.clean, str):
        return False, measured.clean, expected
    if not measured.clean.code_from_model:
        return False, "another kits_ml than the model's own ran", expected
    return True, f"loaded in {measured.clean.load_s:.1f} s", expected


def _check_geometry(measured: Measured, settings: GateSettings) -> _Result:
    expected = "the same probabilities for a volume in any orientation"
    if isinstance(measured.clean, str):
        return False, "nothing: the clean process failed", expected
    differences = measured.clean.differences
    wrong = {codes: one for codes, one in differences.items() if not one <= MAX_DIFFERENCE}  # NaN is wrong too
    if wrong:
        return False, ", ".join(f"{codes} differs by {one:.2g}" for codes, one in wrong.items()), expected
    return bool(differences), f"no difference in {', '.join(differences) or 'none'}", expected


def _check_latency(measured: Measured, settings: GateSettings) -> _Result:
    expected = f"at most {settings.max_seconds_per_slice:g} s a slice"
    if isinstance(measured.clean, str):
        return False, "nothing: the clean process failed", expected
    shape = " x ".join(map(str, measured.clean.shape))
    found = measured.clean.seconds_per_slice
    return found <= settings.max_seconds_per_slice, f"{found:.3f} s a slice of {shape}", expected


def _check_memory(measured: Measured, settings: GateSettings) -> _Result:
    expected = f"at most {settings.max_memory_mb:g} MB"
    if isinstance(measured.clean, str):
        return False, "nothing: the clean process failed", expected
    found = measured.clean.peak_memory_mb
    if found is None:
        return True, "not known: this system does not tell", expected
    return found <= settings.max_memory_mb, f"{found:.0f} MB", expected


def _check_predictions(measured: Measured, settings: GateSettings) -> _Result:
    expected = "a kidney in each test case that shows one"
    if measured.evidence is None:
        return False, "no scores of test cases", f"{expected}; give --data, a folder that holds some"
    kidneys = {case.case: case.regions["kidney"] for case in measured.evidence.cases}
    shown = [name for name, scores in kidneys.items() if scores.volume_true_ml > 0]
    empty = [name for name in shown if not kidneys[name].volume_pred_ml > 0]
    if empty:
        return False, f"no kidney in {', '.join(empty[:5])}: {len(empty)} of {len(shown)} cases", expected
    return bool(shown), f"one in {len(shown)} of {len(shown)} cases", expected


CHECKS: Mapping[str, Callable[[Measured, GateSettings], _Result]] = {
    "metrics_selftest": _check_selftest,
    "clean_process": _check_clean_process,
    "geometry_round_trip": _check_geometry,
    "latency": _check_latency,
    "memory": _check_memory,
    "no_empty_predictions": _check_predictions,
}


def judge(measured: Measured, settings: GateSettings) -> tuple[Finding, ...]:
    """All checks, in order."""
    results = {name: check(measured, settings) for name, check in CHECKS.items()}
    return tuple(
        Finding(name=name, passed=passed, found=found, expected=expected)
        for name, (passed, found, expected) in results.items()
    )
