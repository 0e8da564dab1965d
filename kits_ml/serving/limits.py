"""What an upload may be at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from kits_ml.config import ServeSettings
from kits_ml.serving.refusals import RefusedError

#: Scanners make up to 2,048 rows and columns. Of a longer axis, one slice alone could fill the memory.
LONGEST_AXIS = 4096

#: Files in a zip: a series has one a slice.
MOST_FILES = 10_000

#: NIfTI extensions before the voxels, and what may follow them.
MOST_EXTRA_BYTES = 1 << 24

#: Spacings beyond these are of no patient, and sums of them overflow.
SPACING_MM = (1e-3, 1e3)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """In bytes and voxels.

    Attributes:
        upload_bytes: as it comes over the network.
        unpacked_bytes: of the scan's file or files, unpacked.
        num_voxels: of the volume.
    """

    upload_bytes: int
    unpacked_bytes: int
    num_voxels: int

    @classmethod
    def of(cls, settings: ServeSettings) -> Self:
        """Those that the settings name; a MB has 1,000,000 bytes."""
        return cls(
            upload_bytes=settings.max_upload_mb * 1_000_000,
            unpacked_bytes=settings.max_unpacked_mb * 1_000_000,
            num_voxels=settings.max_voxels,
        )

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises `RefusedError` (413) where a volume of this shape is too large."""
        num_voxels = 1
        for size in shape:
            num_voxels *= int(size)  # Python's whole numbers do not overflow
        found = f"a volume of {num_voxels:,} voxels {tuple(shape)}"
        if num_voxels > self.num_voxels:
            raise RefusedError(413, f"{found}, expected at most {self.num_voxels:,}")
        if max(shape) > LONGEST_AXIS:
            raise RefusedError(413, f"{found}, expected at most {LONGEST_AXIS} along an axis")

    def check_unpacked(self, num_bytes: int) -> None:
        """Raises `RefusedError` (413) where an upload unpacks to more than it may."""
        if num_bytes > self.unpacked_bytes:
            found = f"unpacks to {num_bytes / 1e6:,.0f} MB"
            raise RefusedError(413, f"the upload {found}, expected at most {self.unpacked_bytes / 1e6:,.0f} MB")
