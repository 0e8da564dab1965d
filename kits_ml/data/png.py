"""Grey-value PNG files, several times as fast as Pillow writes them; any reader of PNG reads them.

The slow part is compression, which isal does here; the rest of the format is little
(https://www.w3.org/TR/png/). Equal pixels give equal bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from isal import isal_zlib
from PIL import Image

from kits_ml.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Each line is stored as differences between neighbours: a tenth smaller for CT, at no cost.
_FILTER_SUB = 1
_LEVEL = 1


def encode(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file.

    Args:
        pixels: `(rows, columns)` uint8, at least one of each.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"pixels of type {pixels.dtype} and shape {pixels.shape}, expected (rows, columns) uint8")
    rows, columns = pixels.shape
    lines = np.empty((rows, 1 + columns), np.uint8)
    lines[:, 0] = _FILTER_SUB
    lines[:, 1] = pixels[:, 0]
    np.subtract(pixels[:, 1:], pixels[:, :-1], out=lines[:, 2:])  # modulo 256, as the format wants it
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)  # 8 bits of grey, not interlaced
    compressed = isal_zlib.compress(lines, _LEVEL)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", compressed) + _chunk(b"IEND", b"")


def read(path: Path, *, size: int) -> np.ndarray:
    """The pixels of a square PNG file, `(size, size)` uint8, whoever wrote it.

    Raises:
        InputError: the file is missing or damaged, has other than 8 bits of grey, or another size.
    """
    try:
        with Image.open(path) as picture:
            mode, pixels = picture.mode, np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow calls damage inside a PNG a syntax error
        raise InputError(f"{path}: cannot be read ({error}); remove the store and prepare again") from error
    if mode != "L" or pixels.shape != (size, size):
        shape = " x ".join(map(str, pixels.shape))
        raise InputError(f"{path}: found {shape} pixels of mode {mode}, expected {size} x {size} of 8-bit grey (L)")
    return pixels


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = isal_zlib.crc32(content, isal_zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
