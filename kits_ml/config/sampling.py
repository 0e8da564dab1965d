"""Which slices a batch holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Settings):
    """Batches, and how their slices are drawn."""

    batch_size: int = setting(8, "slices a step", minimum=1)
    training_margin_mm: float | None = setting(
        None,
        "train only on slices this near to one that shows kidney or tumour; validation and test keep whole cases; "
        "without: all slices, as in the report",
        unit="mm",
        minimum=0,
    )
    sampling: Literal["shuffled", "foreground", "balanced"] = setting(
        "shuffled",
        "shuffled: all slices in turn; foreground: foreground_fraction of each batch shows kidney or tumour, as "
        "nnU-Net; balanced: as many slices with tumour, with kidney alone and with neither",
    )
    foreground_fraction: float = setting(
        0.33,
        "at least this share of each batch shows kidney or tumour, with sampling foreground; nnU-Net: one in three",
        minimum=0,
        maximum=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling != "foreground" and self.foreground_fraction != SamplingSettings.foreground_fraction:
            raise InputError(
                f"foreground_fraction: found {self.foreground_fraction:g} with sampling {self.sampling}, "
                "expected sampling foreground"
            )
