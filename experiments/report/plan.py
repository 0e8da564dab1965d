"""How large each stage is: on real slices, and on the phantom alone for those without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kits_ml.config import TrainSettings
from kits_ml.options import read_config

#: Network, images and budget of the small trainings; the report's own are 256 pixels, 16 filters, 250 steps of 50.
SMALL: Mapping[str, Any] = MappingProxyType(
    {"image_size": 128, "base_filters": 8, "depth": 4, "batch_size": 8, "epochs": 5, "steps_per_epoch": 80}
)

EXPERIMENTS = Path(__file__).parents[1]
PRESET = EXPERIMENTS / "presets" / "report.yaml"
FOLD = EXPERIMENTS / "kits_thin" / "folds" / "fold_0.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the data are, and the size of each stage.

    Attributes:
        output: folder of all that is made.
        thin: folder of real slices in the KiTS layout; None: the phantom takes their place.
        volume: folder with one whole real scan; None: the phantom alone is looked at.
        fingerprint: CSV of slices, HU and voxels of all KiTS19 cases; None: the rule is applied to the phantom alone.
        num_phantoms: how many phantom cases are made.
        exact: what the exact training has other than the preset; nothing on real slices.
        small: network, images and budget of the small trainings on the cases of the exact one.
        small_phantom: the same for those on the phantom.
        seeds: of the trainings with one fault after the other mended; each is the whole series once more.
        num_threads, num_workers: threads of the network; processes that prepare.
    """

    output: Path
    thin: Path | None = None
    volume: Path | None = None
    fingerprint: Path | None = None
    num_phantoms: int = 24
    exact: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    small_phantom: Mapping[str, Any] = field(default_factory=lambda: {**SMALL, "image_size": 96})
    seeds: tuple[int, ...] = (0,)
    num_threads: int = 0
    num_workers: int = 2

    @property
    def phantom(self) -> Path:
        """The folder of the phantom cases."""
        return self.output / "phantom"

    @property
    def cases(self) -> Path:
        """The folder of the cases that the report's training sees."""
        return self.thin or self.phantom

    @property
    def data_name(self) -> str:
        """What the pages call these cases."""
        return "real KiTS slices" if self.thin else "phantom"


def real_plan(data: Path, output: Path, **options: Any) -> Plan:
    """The plan for a folder with `kits-thin`, `ircadb` and `kits19-fingerprint.csv`; only the first must be there."""
    volume, fingerprint = data / "ircadb", data / "kits19-fingerprint.csv"
    return Plan(
        output=output,
        thin=data / "kits-thin",
        volume=volume if volume.is_dir() else None,
        fingerprint=fingerprint if fingerprint.is_file() else None,
        **options,
    )


def phantom_plan(output: Path, **options: Any) -> Plan:
    """The plan for those without data: minutes."""
    exact = {"image_size": 96, "base_filters": 8, "batch_size": 16, "steps_per_epoch": 30}
    small = {**SMALL, "image_size": 96}
    return Plan(output=output, **{"exact": exact, "small": small, "small_phantom": small, **options})


def given_settings(plan: Plan) -> dict[str, Any]:
    """The settings that make the report's training what it is; all others have the package's defaults."""
    return {**read_config(str(PRESET)), **plan.exact}


def exact_settings(plan: Plan) -> TrainSettings:
    """The report's training: its preset and nothing else but where things are, and a split by patient."""
    own = {
        "data": str(plan.cases),
        "prepared": str(plan.output / "prepared"),
        "split_file": str(FOLD) if plan.thin else None,
        "experiment": "report",
        "run_name": "report-exact",
        "register": False,
        "num_threads": plan.num_threads,
        "num_workers": plan.num_workers,
    }
    return TrainSettings.from_mapping({**given_settings(plan), **own}, source=str(PRESET))
