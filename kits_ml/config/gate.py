"""The gate in front of the champion: what a new model must show, stated before its scores are looked at."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class GateSettings(Settings):
    """Margins and limits of the gate."""

    margin_kidney: float = setting(
        0.01, "mean Dice that the challenger may be worse by on the kidney", minimum=0, maximum=1
    )
    margin_tumour: float = setting(
        0.05, "the same on the tumour, whose Dice varies five times as much", minimum=0, maximum=1
    )
    confidence: float = setting(
        0.95, "that the challenger is not worse by more than the margins (one-sided)", minimum=0.5, maximum=0.999
    )
    num_bootstrap: int = setting(10_000, "how often patients are drawn again", minimum=100, maximum=1_000_000)
    seed: int = setting(0, "of the drawing", minimum=0)
    min_patients: int = setting(10, "patients that a comparison with the champion needs", minimum=2)
    check_slices: int = setting(
        16, "slices of 512 x 512 that time and memory are measured on", minimum=1, maximum=2000
    )
    max_seconds_per_slice: float = setting(1.0, "limit of the time", unit="s", minimum=0)
    max_memory_mb: float = setting(4096.0, "limit of the whole process's memory", unit="MB", minimum=0)
    check_timeout_s: float = setting(900.0, "after which the clean process is given up", unit="s", minimum=1)

    def margin_of(self, region: str) -> float:
        """The margin of a region, a key of `labels.REGIONS`."""
        return getattr(self, f"margin_{region}")


@dataclass(frozen=True, kw_only=True)
class PromoteSettings(GateSettings):
    """Make a registered version the champion, if it passes the gate; exits non-zero where it does not."""

    model: str = setting("kits-unet", "name in the model registry")
    version: int | None = setting(None, "which version; without one, the challenger", minimum=1)
    data: str | None = setting(
        None, "folder of cases on which a version is scored that has no scores on the other's test cases"
    )
    force: bool = setting(False, "make it the champion whatever the gate says; leaves its trace, needs a reason")
    reason: str | None = setting(None, "why it is forced, for the trace")
    experiment: str = setting("kits_ml", "MLflow experiment")
    batch_size: int = setting(8, "slices the network takes at once, for data", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.force and not (self.reason or "").strip():
            raise InputError("force: found true without a reason, expected --reason, which becomes part of the trace")
        if self.reason and not self.force:
            raise InputError("reason: found without force, expected --force true with it")


@dataclass(frozen=True, kw_only=True)
class RollbackSettings(Settings):
    """Give the champion's place back to the version that had it before."""

    model: str = setting("kits-unet", "name in the model registry")
    reason: str | None = setting(None, "why, for the trace")
