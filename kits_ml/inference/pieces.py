"""The connected pieces of a mask, found slab by slab: a mask of a thousand slices takes the memory of one slab.

Each slab is numbered by itself; numbers that touch across the border of two slabs are one piece. (Two-pass labelling
with an equivalence table, Rosenfeld and Pfaltz, J. ACM 13 (1966), with slabs in place of lines.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage, sparse

#: A slab's numbers are four bytes a voxel.
SLAB_VOXELS = 1 << 23

#: Gives the mask of some slices, `(slices, rows, columns)` bool.
Masks = Callable[[slice], np.ndarray]


class Pieces:
    """The pieces of a mask, numbered from 1; 0 is no piece.

    Args:
        mask_of: gives parts of the mask; is asked several times and has to answer the same as long as this is used.
        shape: `(slices, rows, columns)` of the whole mask.
        corners: whether voxels that touch at an edge or a corner belong together; else only those that share a face.
    """

    def __init__(self, mask_of: Masks, shape: tuple[int, int, int], *, corners: bool = True):
        self._mask_of = mask_of
        self._structure = ndimage.generate_binary_structure(3, 3 if corners else 1)
        self._slabs = list(slabs(shape))
        self._piece_of, self.num_voxels = self._connect()

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return len(self.num_voxels) - 1

    def numbers(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields the slices of each slab and the piece of each of its voxels, int32."""
        first = 0
        for part in self._slabs:
            labelled, count = ndimage.label(self._mask_of(part), self._structure)
            table = np.concatenate([[0], self._piece_of[first : first + count]]).astype(np.int32)
            first += count
            yield part, table[labelled]

    def meeting(self, mask_of: Masks) -> np.ndarray:
        """Which pieces have a voxel in common with another mask, `(count + 1,)` bool; False for number 0."""
        met = np.zeros(len(self.num_voxels), bool)
        if self.count:
            for part, numbers in self.numbers():
                met[numbers[mask_of(part)]] = True
        met[0] = False
        return met

    def at_the_border(self) -> np.ndarray:
        """Which pieces reach a face of the volume, `(count + 1,)` bool; False for number 0."""
        met = np.zeros(len(self.num_voxels), bool)
        for part, numbers in self.numbers():
            faces = [numbers[:, [0, -1]], numbers[:, :, [0, -1]]]
            faces += [numbers[:1]] * (part.start == 0) + [numbers[-1:]] * (part.stop == self._slabs[-1].stop)
            for face in faces:
                met[face] = True
        met[0] = False
        return met

    def _connect(self) -> tuple[np.ndarray, np.ndarray]:
        """The piece of each number of each slab, and the voxels of each piece (of number 0: none)."""
        sizes, pairs, upper, first = [], [], None, 0
        for part in self._slabs:
            labelled, count = ndimage.label(self._mask_of(part), self._structure)
            sizes.append(np.bincount(labelled.ravel(), minlength=count + 1)[1:])
            lower = _numbered_from(first, labelled[0])
            if upper is not None:
                pairs.append(_touching(upper, lower, self._structure[0]))
            upper = _numbered_from(first, labelled[-1])
            first += count
        touching = np.concatenate(pairs) - 1 if pairs else np.zeros((0, 2), np.intp)
        graph = sparse.coo_matrix((np.ones(len(touching), bool), touching.T), shape=(first, first))
        count, piece_of = sparse.csgraph.connected_components(graph, directed=False) if first else (0, [])
        piece_of = np.asarray(piece_of, np.int64) + 1
        num_voxels = np.bincount(piece_of, weights=np.concatenate(sizes), minlength=count + 1)
        return piece_of, num_voxels.astype(np.int64)


def slabs(shape: tuple[int, int, int]) -> Iterator[slice]:
    """Yields slices of a volume that together have about `SLAB_VOXELS`, in order."""
    step = max(1, SLAB_VOXELS // max(1, shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _numbered_from(first: int, numbers: np.ndarray) -> np.ndarray:
    """Numbers of a slab among those of all slabs; 0 stays 0."""
    return np.where(numbers > 0, numbers.astype(np.int64) + first, 0)


def _touching(upper: np.ndarray, lower: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """Numbers of two neighbouring slices that touch, each pair once, `(pairs, 2)`.

    Args:
        upper, lower: `(rows, columns)` numbers; 0 is none.
        structure: `(3, 3)`, which neighbours in the other slice touch.
    """
    num_rows, num_columns = upper.shape
    padded = np.pad(upper, 1)
    found = []
    for row, column in np.argwhere(structure):
        shifted = padded[row : row + num_rows, column : column + num_columns]
        both = (shifted > 0) & (lower > 0)
        found.append(np.unique(np.stack([shifted[both], lower[both]], axis=1), axis=0))
    return np.unique(np.concatenate(found), axis=0)
