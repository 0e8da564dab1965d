"""Evidence from Dice alone, for tests of the gate."""

from collections.abc import Mapping

from kits_ml.evaluation.evidence import Evidence
from kits_ml.evaluation.gate_checks import CleanRun, Measured
from kits_ml.evaluation.selftest import Row
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import LESION_SIZE_CLASSES, RegionScores

COUNTS = (1,) * len(LESION_SIZE_CLASSES)
LESIONS = {f"lesions_{kind}": sum(COUNTS) for kind in ("true", "found", "false")} | {
    f"lesions_{kind}_by_size": COUNTS for kind in ("true", "found", "false")
}


def evidence(dice: Mapping[str, tuple[float, float]], *, empty: tuple[str, ...] = (), version: str = "") -> Evidence:
    """Scores with a kidney and a tumour Dice by case; `version` makes other files of the same names."""
    cases = []
    for name, values in dice.items():
        regions = {
            region: RegionScores(
                region=region,
                **{"dice": value, "iou": value, "precision": value, "recall": value},
                **{
                    "volume_true_ml": 100.0,
                    "volume_pred_ml": 0.0 if name in empty else 90.0,
                    "volume_error_ml": -10.0,
                },
                **({} if region == "kidney" else LESIONS),
            )
            for region, value in zip(("kidney", "tumour"), values, strict=True)
        }
        cases.append(CaseScores(case=name, regions=regions))
    return Evidence(cases=tuple(cases), case_digests={name: f"{name}{version}" for name in dice})


def measured(*, clean: CleanRun | str | None = None, found: Evidence | None = None, ok: bool = True) -> Measured:
    """All well, unless told otherwise."""
    row = Row(metric="dice", convention="", scenario="perfect", expected="1", found="1" if ok else "0", ok=ok)
    return Measured(
        selftest=[row],
        clean=clean if clean is not None else clean_run(),
        evidence=found if found is not None else evidence({"case_00000": (0.9, 0.5)}),
    )


def clean_run(**changes) -> CleanRun:
    """A clean process that found nothing wrong."""
    values = {
        **{"shape": (16, 512, 512), "load_s": 5.0, "seconds_per_slice": 0.2, "peak_memory_mb": 900.0},
        **{"code_from_model": True, "differences": {"RAS": 0.0, "SAL": 1e-7}},
    }
    return CleanRun(**{**values, **changes})
