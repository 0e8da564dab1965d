"""Where the weights start, and how a training that was stopped goes on."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(Settings):
    """First weights and checkpoints."""

    init_from: str | None = setting(
        None,
        "start with the weights of this model: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model, a folder or "
        "a .keras file; without one, fresh weights",
    )
    resume: bool = setting(
        False,
        "go on with the last training in checkpoints that was stopped, which must have the same settings and data; "
        "none stopped: start anew",
    )
    resume_run: str | None = setting(None, "go on with the training of this MLflow run")
    checkpoints: str = setting("data/checkpoints", "folder that holds a checkpoint of each unfinished training")
    checkpoint_minutes: float = setting(
        5.0, "time between two checkpoints within an epoch; each epoch's end has one too", unit="min", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.resume_run:
            raise InputError(f"resume: found true with resume_run {self.resume_run}, expected one of the two")
