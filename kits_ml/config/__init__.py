"""Every setting of the program: once, with its default, unit and help text.

A setting has one spelling from end to end: the dataclass field is the command-line option, the MLproject
parameter, the MLflow key and the Optuna name. Settings that several commands share live in a base class.
"""

from kits_ml.config.architecture import ArchitectureSettings, ModelsSettings
from kits_ml.config.augmentation import AugmentationSettings
from kits_ml.config.checkpoints import CheckpointSettings
from kits_ml.config.comparison import CompareSettings
from kits_ml.config.data import (
    ExportSettings,
    FetchSettings,
    InspectSettings,
    PhantomSettings,
    PrepareSettings,
    PreprocessingSettings,
    SelectionSettings,
    SplitSettings,
)
from kits_ml.config.device import DeviceSettings
from kits_ml.config.evaluation import EvaluateSettings, SelftestSettings
from kits_ml.config.gate import GateSettings, PromoteSettings, RollbackSettings
from kits_ml.config.inference import InferenceSettings, SegmentationSettings, TunePostprocessingSettings
from kits_ml.config.losses import LossSettings
from kits_ml.config.models import InfoSettings, PredictSettings, RegisterSettings
from kits_ml.config.optimization import OptimizationSettings
from kits_ml.config.postprocessing import PostprocessingChoice, PostprocessingSettings
from kits_ml.config.quality import QualitySettings
from kits_ml.config.sampling import SamplingSettings
from kits_ml.config.serving import ServeSettings
from kits_ml.config.studies import ConfirmSettings, SearchSettings, StudySettings
from kits_ml.config.training import MainSettings, TrainSettings

__all__ = [
    "ArchitectureSettings",
    "AugmentationSettings",
    "CheckpointSettings",
    "CompareSettings",
    "ConfirmSettings",
    "DeviceSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FetchSettings",
    "GateSettings",
    "InferenceSettings",
    "InfoSettings",
    "InspectSettings",
    "LossSettings",
    "MainSettings",
    "ModelsSettings",
    "OptimizationSettings",
    "PhantomSettings",
    "PostprocessingChoice",
    "PostprocessingSettings",
    "PredictSettings",
    "PrepareSettings",
    "PreprocessingSettings",
    "PromoteSettings",
    "QualitySettings",
    "RegisterSettings",
    "RollbackSettings",
    "SamplingSettings",
    "SearchSettings",
    "SegmentationSettings",
    "SelectionSettings",
    "SelftestSettings",
    "ServeSettings",
    "SplitSettings",
    "StudySettings",
    "TrainSettings",
    "TunePostprocessingSettings",
]
