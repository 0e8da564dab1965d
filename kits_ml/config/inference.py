"""How a trained model is used on whole scans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.config.postprocessing import PostprocessingChoice
from kits_ml.errors import InputError
from kits_ml.settings import REQUIRED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(Settings):
    """What probabilities depend on besides the model, and what their making takes."""

    test_time_augmentation: Literal["none", "flip_left_right", "flip_all"] = setting(
        "none",
        "mean over mirrored slices; flip_left_right: twice the time; flip_all: front and back too, four times the "
        "time, for models that were trained with flip_up_down_probability",
    )
    engine: Literal["keras", "openvino", "onnxruntime"] = setting(
        "keras",
        "what runs the network; openvino and onnxruntime take its ONNX file and need no TensorFlow; extra: engines",
    )
    batch_size: int = setting(8, "slices the network takes at once", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(PostprocessingChoice, InferenceSettings):
    """What a label map depends on besides the model."""


@dataclass(frozen=True, kw_only=True)
class TunePostprocessingSettings(InferenceSettings):
    """Show on validation patients which post-processing helps a model; what is not shown to help stays off."""

    model: str = setting(
        "models:/kits-unet@champion",
        "models:/NAME@ALIAS, models:/NAME/VERSION or a folder; several, divided by commas: the mean of their softmax",
    )
    data: str = setting(REQUIRED, "folder of cases")
    subset: Literal["validation", "all"] = setting(
        "validation",
        "validation: the model's own validation patients; all: each case of the folder, which then must be no test "
        "patients",
    )
    predictions: str | None = setting(
        None, "folder of the model's label maps without post-processing, NAME.nii.gz; without one, it segments"
    )
    output: str = setting("tuned", "folder that gets the tables, postprocessing.yaml and the label maps")
    overwrite: bool = setting(False, "replace the output folder's files")
    store: str | None = setting(None, "folder that gets the model with what helps stored in it, for --model")
    model_name: str | None = setting(
        None, "name in the model registry that gets the stored model as a challenger, for store; without one, none"
    )
    experiment: str = setting("kits_ml", "MLflow experiment of the run that registers, for model_name")
    num_workers: int = setting(2, "worker processes that clean and score", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name is not None and self.store is None:
            raise InputError(f"model_name: found {self.model_name} without store, expected a folder for the model")
