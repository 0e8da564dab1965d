"""Studies: where trials are kept, how workers agree, and what a study's own file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import REQUIRED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """Where a study's trials, runs and results are."""

    study: str = setting(REQUIRED, "the study's YAML file, or the name of one that the storage holds")
    storage: str = setting("sqlite:///optuna.db", "where the trials are kept, as storage_class takes it")
    storage_class: Literal["RDBStorage", "JournalFileBackend", "JournalRedisBackend", "GrpcStorageProxy"] = setting(
        "RDBStorage",
        "Optuna's name: RDBStorage takes a URL of SQLite or PostgreSQL; the others notice no killed worker: "
        "JournalFileBackend a path, JournalRedisBackend a URL, GrpcStorageProxy host:port",
    )
    heartbeat_s: int = setting(30, "how often a running trial gives a sign of life", unit="s", minimum=1)
    grace_s: int = setting(
        120, "silence after which a running trial is given up and tried again", unit="s", minimum=1
    )
    num_processes: int = setting(
        0,
        "processes of this machine that share the work, a thread each unless the study's file says otherwise; with "
        "more than one, trials differ from call to call; 0: one a core as free memory allows, or one with a GPU",
        minimum=0,
    )
    poll_s: float = setting(5.0, "how often a worker without work looks again", unit="s", minimum=0.01)
    output: str = setting("studies", "folder that gets a folder a study: best.yaml, tables and plots")
    experiment: str = setting("kits_ml", "MLflow experiment of a new study, and of all that belongs to it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grace_s <= self.heartbeat_s:
            raise InputError(f"grace_s: found {self.grace_s}, expected more than heartbeat_s {self.heartbeat_s}")


@dataclass(frozen=True, kw_only=True)
class ConfirmSettings(StudySettings):
    """Train the best configuration of each architecture anew over folds and seeds, and compare them on the test
    patients."""

    confirm_folds: int = setting(
        5,
        "folds of the patients that are not for test; each validates once; of a split_file the first of its folds",
        minimum=2,
    )
    confirm_seeds: int = setting(2, "trainings of each fold, with seeds from 0", minimum=1)
    control: str = setting("unet", "the architecture that all others are held against")
    equivalence_margin: float = setting(
        0.01, "differences of the mean Dice up to here count as none: stated before the test patients are scored"
    )
    register: bool = setting(True, "register the winner, chosen on validation patients, as challenger")
    promote: bool = setting(
        True, "put the registered winner through the gate with promote's defaults: the champion, if it passes"
    )
    model_name: str = setting("kits-unet", "name in the model registry")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.equivalence_margin > 0:
            raise InputError(f"equivalence_margin: found {self.equivalence_margin}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """The plain entries of a study's file."""

    name: str = setting(REQUIRED, "of the study, in the storage and in MLflow")
    trials: int | None = setting(None, "finished trials of each architecture, pruned ones too", minimum=1)
    minutes: float | None = setting(
        None,
        "time of each architecture's trials, of all workers together, with what they prepare first; the last trial "
        "may go beyond",
        minimum=0,
    )
    seed: int = setting(0, "of the sampler: the same seed and one worker give the same trials", minimum=0)
    num_folds: int = setting(
        0, "inner folds that a trial trains and averages over; 0: one validation part", minimum=0
    )
    max_failed: int = setting(10, "failed trials after which an architecture is given up", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip() or "/" in self.name:
            raise InputError(f"name: found {self.name!r}, expected a name without a slash")
        if self.name in (".", ".."):
            raise InputError(f"name: found {self.name!r}, expected one that can be a folder's")
        if self.trials is None and self.minutes is None:
            raise InputError("trials: found neither trials nor minutes, expected a budget for each architecture")
        if self.minutes == 0:
            raise InputError("minutes: found 0, expected more")
        if self.num_folds == 1:
            raise InputError("num_folds: found 1, expected 0 (no folds) or at least 2")
