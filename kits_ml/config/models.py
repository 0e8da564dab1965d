"""Registered models: put into the registry, used, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.settings import REQUIRED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class RegisterSettings(Settings):
    """Register the model of a finished run."""

    run_id: str = setting(REQUIRED, "MLflow run that logged a model")
    model_name: str = setting("kits-unet", "name in the model registry")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Segment a scan with a registered model; the output lies on the scan's own grid."""

    model: str = setting("models:/kits-unet@champion", "models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
    image: str = setting(REQUIRED, "the scan: a NIfTI file or a folder of DICOM slices; any orientation")
    output: str = setting(REQUIRED, "the label map to write, .nii.gz: 0 background, 1 kidney, 2 tumour")
    overlay: str | None = setting(None, "a PNG with the contours on the scan")
    overwrite: bool = setting(False, "replace files that are there")
    batch_size: int = setting(8, "slices the network takes at once", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """What this machine and its registry hold."""

    model: str | None = setting(None, "show this model: models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
