"""A trained network as ONNX, for those who run it without Keras."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from kits_ml.errors import InputError, first_line
from kits_ml.models.folding import folded

#: Name of the network's input: prepared slices, `(batch, size, size, input_slices)` float32.
INPUT_NAME = "slices"


def export_onnx(model: keras.Model, path: Path) -> None:
    """Writes a network as ONNX and checks that it is valid; the batch stays free.

    Takes seconds to a minute: the converter unrolls every normalisation.

    Args:
        model: of one input, in float32.
        path: the file.

    Raises:
        InputError: a layer that ONNX has no operation for, or a converter that is not installed. There is no file
            then.
    """
    signature = [keras.InputSpec(shape=(None, *model.input_shape[1:]), dtype="float32", name=INPUT_NAME)]
    try:
        import onnx

        with _quiet():
            folded(model).export(str(path), format="onnx", verbose=False, input_signature=signature)
            onnx.checker.check_model(str(path))  # the converter writes operations that do not exist
    except Exception as error:  # every backend's converter has errors of its own
        path.unlink(missing_ok=True)
        raise InputError(f"ONNX: {model.name} cannot be exported ({first_line(error)})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's own warnings: what matters becomes an error."""
    converter = logging.getLogger("tf2onnx")
    level = converter.level
    converter.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        converter.setLevel(level)
