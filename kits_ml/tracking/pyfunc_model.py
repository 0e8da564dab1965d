"""The registered model as code: MLflow runs this file to make the pyfunc model; nothing is pickled.

The package travels in the model's `code` folder, so the process that loads it needs no kits_ml of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class KitsModel(PythonModel):
    """HU in, labels (or probabilities) out, on the same grid."""

    def load_context(self, context: Any) -> None:
        """Loads the network and its preparation."""
        from kits_ml import runtime

        runtime.configure()

        from kits_ml.inference.predictor import Predictor

        self.predictor = Predictor.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Segments a volume.

        Args:
            context: MLflow's.
            model_input: HU, three axes, float32.
            params: `orientation`, the axis codes of the array: `"IPL"` is slices from superior to inferior, rows to
                posterior, columns to the patient's left; `"RAS"` is what nibabel's canonical images have.
                `spacing_mm`, the voxels' size along the array's three axes, in their own order; needed by models
                whose preparation has the framing `spacing`, and by those that store post-processing.
                `probabilities`, whether to give these, as they are before post-processing, instead of labels.

        Returns:
            Label map of the same shape and orientation, uint8: 0 background, 1 kidney, 2 tumour. With
            `probabilities`, float32 `(classes, ...)` with the same three axes behind; the signature names only the
            label map, because MLflow knows one output a model.
        """
        from kits_ml.data.orientation import reorient, reorient_spacing
        from kits_ml.data.volumes import HOUSE_ORIENTATION
        from kits_ml.inference.postprocessing import postprocess, settings_of
        from kits_ml.inference.probabilities import ProbabilityMap

        given = params or {}
        orientation = given.get("orientation", HOUSE_ORIENTATION)
        spacing_mm = list(given.get("spacing_mm", ())) or None
        image = reorient(model_input, source=orientation, target=HOUSE_ORIENTATION)
        if spacing_mm:
            spacing_mm = reorient_spacing(spacing_mm, source=orientation, target=HOUSE_ORIENTATION)
        seen = ProbabilityMap(image.shape) if given.get("probabilities") else None
        label_map = self.predictor.segment(image, spacing_mm=spacing_mm, observe=seen)
        if seen is None:
            stored = settings_of(self.predictor.description, source="model")
            label_map = postprocess(label_map, spacing_mm=spacing_mm, settings=stored)
            return np.ascontiguousarray(reorient(label_map, source=HOUSE_ORIENTATION, target=orientation))
        return np.stack([reorient(one, source=HOUSE_ORIENTATION, target=orientation) for one in seen.array])


set_model(KitsModel())
