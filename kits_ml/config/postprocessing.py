"""How a predicted label map is cleaned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PostprocessingSettings(Settings):
    """What is done to a predicted label map; nothing by default. `tune-postprocessing` shows what helps a model."""

    fill_holes: Literal["none", "volume", "slices"] = setting(
        "none",
        "post-processing: label background that is enclosed; volume: on all sides, slices: within its slice",
    )
    minimum_kidney_ml: float = setting(
        0.0, "post-processing: remove smaller pieces of kidney with their tumour", unit="ml", minimum=0
    )
    keep_largest_kidneys: int = setting(
        0, "post-processing: keep so many pieces of kidney with their tumour; 0: all", minimum=0
    )
    tumour_contact_mm: float | None = setting(
        None,
        "post-processing: remove pieces of tumour that neither touch kidney nor lie this near; without one, keep all",
        unit="mm",
        minimum=0,
        maximum=50,
    )
    minimum_tumour_ml: float = setting(
        0.0,
        "post-processing: remove smaller pieces of tumour; next to kidney they become kidney",
        unit="ml",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class PostprocessingChoice(PostprocessingSettings):
    """Whose post-processing is used."""

    postprocessing: Literal["model", "given"] = setting(
        "model", "model: as stored with the model, none if nothing is; given: as the settings here say"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.postprocessing == "given":
            return
        for field in dataclasses.fields(PostprocessingSettings):
            if getattr(self, field.name) != field.default:
                raise InputError(
                    f"{field.name}: found {getattr(self, field.name)} with postprocessing model, which has its own; "
                    "expected --postprocessing given"
                )
