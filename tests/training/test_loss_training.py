"""A network learns with every loss, on every backend."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from kits_ml import runtime
from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS
from kits_ml.training.losses import make_loss
from tests.training.loss_inputs import random_batch, square, value_of


def _fit(settings: LossSettings, *, jit_compile: bool | str) -> list[float]:
    """Losses of a network of one layer on three images, in batches of two and one."""
    runtime.configure(precision="float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", activation="softmax")(inputs))
    model.compile(keras.optimizers.Adam(0.05), loss=make_loss(settings), jit_compile=jit_compile)
    labels = np.concatenate([square(3), square(8), 2 * square(5)])[:, 2:10, 3:11]
    images = labels[..., None].astype(np.float32)
    return model.fit(images, labels, epochs=12, batch_size=2, shuffle=False, verbose=0).history["loss"]


def test_a_compiled_training_lowers_the_loss():
    # top-k counts pixels of batches whose size the graph does not know
    losses = _fit(LossSettings(loss="dice_topk_crossentropy"), jit_compile=runtime.jit_compile())
    assert losses[-1] < losses[0]


EVERY_LOSS = """
import sys
import numpy as np
from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS
from kits_ml.training.losses import make_loss
from tests.training.loss_inputs import random_batch, value_of
from tests.training.test_loss_training import _fit
values = []
for name in LOSS_PARTS:
    for per_slice in (False, True):
        settings = LossSettings(loss=name, overlap_per_slice=per_slice, focal_gamma=1.5)
        values.append(value_of(make_loss(settings), *random_batch(8)))
    losses = _fit(settings, jit_compile=True if sys.argv[2] == "xla" else "auto")
    assert losses[-1] < losses[0], (name, losses)
np.save(sys.argv[1], values)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "compiler"), [("tensorflow", "xla"), ("torch", "auto"), ("jax", "auto")])
def test_every_backend_trains_with_every_loss_and_agrees(backend, compiler, tmp_path):
    pytest.importorskip(backend)
    expected = [
        value_of(make_loss(LossSettings(loss=name, overlap_per_slice=per_slice, focal_gamma=1.5)), *random_batch(8))
        for name in LOSS_PARTS
        for per_slice in (False, True)
    ]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVERY_LOSS, tmp_path / "values.npy", compiler],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        timeout=800,
    )
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), expected, rtol=1e-4)
