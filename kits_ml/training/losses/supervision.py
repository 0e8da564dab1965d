"""What the outputs of deep supervision weigh."""

from __future__ import annotations

from collections.abc import Sequence


def head_weights(sizes: Sequence[int], how: str) -> list[float]:
    """Weights of the outputs in the loss, 1 together.

    Args:
        sizes: rows of each output, the first that of the labels.
        how: `resolution`: as the rows, which halves from one to the next in an nnU-Net, and is the same for all in a
            U-Net++; `halving`: each half of the one before, whatever its rows; `equal`.
    """
    shares = {
        "resolution": list(sizes),
        "halving": [0.5**number for number in range(len(sizes))],
        "equal": [1] * len(sizes),
    }[how]
    return [share / sum(shares) for share in shares]
