"""Kidney and kidney-tumour segmentation on CT as a tracked experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kits_ml.workflows.segmenters import Segmenter

__version__ = "0.1.0"


def load(model: str = "models:/kits-unet@champion", **settings: Any) -> Segmenter:
    """Loads a model that segments scans.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/model`, or a folder that holds a model.
            Several, divided by commas, are an ensemble.
        settings: fields of `kits_ml.config.SegmentationSettings`, the options of `kits-ml predict`: `batch_size`;
            `engine`, what runs the network (`keras`, or `openvino` or `onnxruntime`, which need no TensorFlow);
            `test_time_augmentation`; `postprocessing`, which is the model's own unless it is `given` with its steps.

    Returns:
        A segmenter: `segmenter.segment_scan(path)` takes a NIfTI file or a folder of DICOM slices,
        `segmenter.segment(image_hu, spacing_mm=(slices, rows, columns))` gives the label map of an array on the
        array's own grid; `segmenter.network` is the network with its preparation.

    Raises:
        kits_ml.errors.InputError: no such model, version or alias, a server that does not answer, a setting that is
            unknown, or an engine that is not installed or cannot run the model.
    """
    from kits_ml.config import SegmentationSettings
    from kits_ml.workflows.segmenters import load_segmenter

    return load_segmenter(model, SegmentationSettings.from_mapping(settings, source="load"))
