"""Labels and probabilities to compute losses of."""

import numpy as np
from keras import ops

# two pixels: the first is kidney, the second background
LABELS = np.array([[[1, 0]]], np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]]], np.float32)
# the same as two slices of one pixel
SLICES = LABELS.reshape(2, 1, 1), PROBABILITIES.reshape(2, 1, 1, 3)


def value_of(loss, labels=LABELS, probabilities=PROBABILITIES) -> float:
    found = loss(ops.convert_to_tensor(labels), ops.convert_to_tensor(probabilities))
    assert found.shape == ()
    return float(ops.convert_to_numpy(found))


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels]


def random_batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 3, (2, size, size)).astype(np.uint8),
        rng.dirichlet([1, 1, 1], (2, size, size)).astype(np.float32),
    )


def square(first: int) -> np.ndarray:
    """A kidney of 5 x 5 in 16 x 16, its boundary 16 pixels."""
    labels = np.zeros((1, 16, 16), np.uint8)
    labels[0, 4:9, first : first + 5] = 1
    return labels
