"""Kidney and kidney-tumour segmentation on CT as a tracked experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kits_ml.inference.ensemble import Ensemble
    from kits_ml.inference.predictor import Predictor

__version__ = "0.1.0"


def load(
    model: str = "models:/kits-unet@champion", *, batch_size: int = 8, engine: str = "keras"
) -> Predictor | Ensemble:
    """Loads a model that segments volumes.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/model`, or a folder that holds a model.
            Several, divided by commas, are an ensemble.
        batch_size: slices the network takes at once.
        engine: what runs the network: `keras`, or `openvino` or `onnxruntime`, which need no TensorFlow.

    Returns:
        A predictor; `predictor.segment(image_hu, spacing_mm=(slices, rows, columns))` gives the label map on the
        image's own grid.

    Raises:
        kits_ml.errors.InputError: no such model, version or alias, a server that does not answer, or an engine that
            is not installed or cannot run the model.
    """
    from kits_ml.config import InferenceSettings
    from kits_ml.workflows.segmenters import load_network, local_folders

    settings = InferenceSettings.from_mapping({"batch_size": batch_size, "engine": engine}, source="load")
    return load_network(local_folders(model), settings)
