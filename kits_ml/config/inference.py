"""How a trained model is used on whole scans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.config.postprocessing import PostprocessingChoice
from kits_ml.settings import setting


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(PostprocessingChoice):
    """What a label map depends on besides the model, and what its making takes."""

    test_time_augmentation: Literal["none", "flip_left_right", "flip_all"] = setting(
        "none",
        "mean over mirrored slices; flip_left_right: twice the time; flip_all: front and back too, four times the "
        "time, for models that were trained with flip_up_down_probability",
    )
    batch_size: int = setting(8, "slices the network takes at once", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)
