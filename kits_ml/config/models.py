"""Registered models: put into the registry, used, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.config.inference import SegmentationSettings
from kits_ml.config.quality import QualitySettings
from kits_ml.settings import REQUIRED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class RegisterSettings(Settings):
    """Register the model of a finished run."""

    run_id: str = setting(REQUIRED, "MLflow run that logged a model")
    model_name: str = setting("kits-unet", "name in the model registry")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(QualitySettings, SegmentationSettings):
    """Segment a scan, or a folder of scans, with a registered model; outputs lie on the scan's own grid.

    A folder of scans is told by an output that is a folder. It may hold NIfTI files, folders of DICOM slices, and
    cases in the layout of KiTS. What is finished is not done again, and a bad scan does not stop the rest.
    """

    model: str = setting(
        "models:/kits-unet@champion",
        "models:/NAME@ALIAS, models:/NAME/VERSION or a folder; several, divided by commas: the mean of their softmax",
    )
    image: str = setting(
        REQUIRED, "the scan: a NIfTI file or a folder of DICOM slices; any orientation. Or a folder of scans"
    )
    output: str = setting(
        REQUIRED,
        "the label map to write, .nii.gz: 0 background, 1 kidney, 2 tumour; for a folder of scans, the folder that "
        "gets NAME.nii.gz of each",
    )
    overlay: str | None = setting(
        None, "a PNG with the contours on the scan; for a folder of scans, x.png becomes OUTPUT/x/NAME.png"
    )
    probabilities: str | None = setting(
        None,
        "a NIfTI file of the softmax before post-processing, its fourth axis the classes; for a folder of scans, "
        "x.nii.gz becomes OUTPUT/x/NAME.nii.gz",
    )
    report: str | None = setting(
        None, "a JSON file of volumes, kidneys, tumours, doubt and flags; for a folder of scans as above"
    )
    page: str | None = setting(
        None, "the same as an HTML page with a viewer of the scan; for a folder of scans as above"
    )
    dicom_seg: str | None = setting(
        None, "a DICOM SEG that opens with the series, .dcm, for DICOM scans only; for a folder of scans as above"
    )
    overwrite: bool = setting(False, "replace files that are there")


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """What this machine and its registry hold."""

    model: str | None = setting(None, "show this model: models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
