"""A training: everything that decides its result, and where it is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.config.architecture import ArchitectureSettings
from kits_ml.config.augmentation import AugmentationSettings
from kits_ml.config.checkpoints import CheckpointSettings
from kits_ml.config.data import PrepareSettings
from kits_ml.config.device import DeviceSettings
from kits_ml.config.losses import LossSettings
from kits_ml.config.optimization import OptimizationSettings
from kits_ml.config.sampling import SamplingSettings
from kits_ml.errors import InputError
from kits_ml.settings import setting


@dataclass(frozen=True, kw_only=True)
class TrainSettings(
    CheckpointSettings,
    DeviceSettings,
    OptimizationSettings,
    AugmentationSettings,
    SamplingSettings,
    LossSettings,
    ArchitectureSettings,
    PrepareSettings,
):
    """Prepare what is missing, train, evaluate, register and put through the gate, in one MLflow run."""

    experiment: str = setting("kits_ml", "MLflow experiment")
    run_name: str | None = setting(None, "name of the MLflow run; without one, the architecture's")
    model_name: str = setting("kits-unet", "name in the model registry")
    register: bool = setting(True, "register the model, as challenger")
    promote: bool = setting(
        True, "put the registered model through the gate with promote's defaults: the champion, if it passes"
    )
    onnx: bool = setting(
        True, "export the model as ONNX too: seconds for a U-Net, a minute for networks with many normalisations"
    )
    as_reported: bool = setting(
        False, "also log the report's own metric, which misreads, under as_reported/; it never decides anything"
    )
    as_reported_metrics: str | None = setting(
        None,
        "also log anyone's Keras metrics under as_reported/: import paths such as keras.metrics:MeanIoU, divided by "
        "commas; they are put through the self-test, and never decide anything",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_reported and self.deep_supervision:
            raise InputError("as_reported: found true with deep_supervision; the report's metric is for one output")
        if self.as_reported_metrics is not None and self.deep_supervision:
            raise InputError(
                f"as_reported_metrics: found {self.as_reported_metrics} with deep_supervision; expected one output"
            )


@dataclass(frozen=True, kw_only=True)
class MainSettings(TrainSettings):
    """The whole path: train, then segment one test scan with the registered model."""

    output: str = setting("predictions", "folder that gets the segmentation and its overlay")
