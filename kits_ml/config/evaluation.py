"""Scores, and what is known of the metrics that give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.config.inference import SegmentationSettings
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(SegmentationSettings):
    """Score a model on cases, or a folder of predictions against a folder of references."""

    model: str | None = setting(
        None, "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model or a folder; several, divided by commas"
    )
    data: str | None = setting(None, "folder of cases, for --model")
    subset: Literal["unseen", "all"] = setting("unseen", "unseen: leave out the cases the model was trained on")
    predictions: str | None = setting(None, "folder of predicted label maps, for --references")
    references: str | None = setting(None, "folder of true label maps, for --predictions")
    output: str = setting("evaluation", "folder that gets report.html, scores.csv, summary.json and the pictures")
    overwrite: bool = setting(False, "replace the evaluation in the output folder; other files stay")
    num_workers: int = setting(2, "worker processes", minimum=1)
    track: bool = setting(True, "log scores, pictures and the report as an MLflow run")
    experiment: str = setting("kits_ml", "MLflow experiment, for track")


@dataclass(frozen=True, kw_only=True)
class SelftestSettings(Settings):
    """Feed metrics known predictions and hold their readings to theory; exits non-zero where one misreads."""

    metric: str | None = setting(
        None, "a Keras metric by import path, such as keras.metrics:MeanIoU; without one, the metrics in use"
    )
    kind: Literal["iou", "dice", "accuracy"] = setting("iou", "what the metric measures")
    arguments: str | None = setting(None, """the metric's arguments, YAML or JSON, such as '{"num_classes": 3}'""")
    labels: Literal["one_hot", "sparse"] = setting("one_hot", "how it is given labels")
    average: (
        Literal[
            "labels",
            "foreground_labels",
            "regions",
            "kidney_region",
            "background_label",
            "kidney_label",
            "tumour_label",
        ]
        | None
    ) = setting(None, "what it averages over (labels: background too); without one, what its readings fit best")
    pooling: Literal["pooled", "per_case"] = setting(
        "pooled", "pooled: over the pixels of all patients; per_case: mean over patients, one an update"
    )
