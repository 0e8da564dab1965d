"""The comparison of the confirming trainings: what the study was made for."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from kits_ml.config import CompareSettings
from kits_ml.errors import InputError, first_line
from kits_ml.evaluation.comparison.costs import read_costs
from kits_ml.evaluation.comparison.reading import read_records
from kits_ml.workflows.compare import COMPARISON_JSON, Compared, compare_records

log = logging.getLogger(__name__)

#: Folders of a study's folder, and tables of the first of them.
CONFIRMED, COMPARISON = "confirmed", "comparison"
TEST_CSV, COSTS_CSV = "test.csv", "costs.csv"


def compare_confirmed(folder: Path, *, control: str, equivalence_margin: float) -> Compared | None:
    """Compares the architectures on the test patients, and writes `comparison/`.

    Args:
        folder: of the study, with `confirmed/test.csv` and, if anything is known of it, `confirmed/costs.csv`.
        control: what the others are held against.
        equivalence_margin: differences of the mean Dice up to here count as none.

    Returns:
        None where there is nothing to compare: one architecture, or one patient.
    """
    return _compare(folder, {"control": control, "equivalence_margin": equivalence_margin})


def compared_before(folder: Path) -> Compared | None:
    """The comparison that a study's folder holds, made again with the same settings; None where it holds none."""
    path = folder / COMPARISON / COMPARISON_JSON
    return _compare(folder, json.loads(path.read_text())["settings"]) if path.exists() else None


def outdated(folder: Path, best: Mapping[str, FrozenTrial]) -> list[str]:
    """The architectures whose best trial is no longer the one that was confirmed: the search went on.

    Args:
        folder: of the study.
        best: the best trials now, by architecture.
    """
    confirmed: dict[str, list[Mapping[str, Any]]] = {}
    for path in (folder / CONFIRMED / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        confirmed.setdefault(record["algorithm"], []).append(record["settings"])
    return [
        name
        for name, trial in best.items()
        if name in confirmed and not any(trial.params.items() <= settings.items() for settings in confirmed[name])
    ]


def _compare(folder: Path, chosen: dict) -> Compared | None:
    table, costs = (folder / CONFIRMED / name for name in (TEST_CSV, COSTS_CSV))
    places = {"scores": str(table), "output": str(folder / COMPARISON), "overwrite": True}
    places["costs"] = str(costs) if costs.exists() else None
    try:
        settings = CompareSettings.from_mapping({**chosen, **places}, source=str(folder / COMPARISON))
        records = read_records(table, name=None, replicate=table.name, region=settings.region, metric=settings.metric)
        given_costs = read_costs(costs) if costs.exists() else {}
        return compare_records(records, settings, run_costs={}, given_costs=given_costs)
    except InputError as error:
        log.warning("the confirmed architectures are not compared: %s", first_line(error))
        return None
