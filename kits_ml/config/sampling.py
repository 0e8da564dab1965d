"""Which slices a batch holds."""

from __future__ import annotations

from dataclasses import dataclass

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
    balanced_sampling: bool = setting(
        False, "draw as many slices with tumour, with kidney alone and with neither; false: all slices in turn"
    )
