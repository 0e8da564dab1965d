"""PNG files as written here are what any reader makes of them."""

import io

import numpy as np
import pytest
from PIL import Image

from kits_ml.data import png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (32, 48), (256, 256)])
def test_a_reader_finds_the_pixels_again(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png.encode(pixels))) as image:
        image.verify()  # the checksums
    image = Image.open(io.BytesIO(png.encode(pixels)))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_view_is_as_good_as_a_copy():
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    assert png.encode(pixels[::2, ::-1]) == png.encode(np.ascontiguousarray(pixels[::2, ::-1]))


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.int16), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_grey_image_is_refused(pixels):
    with pytest.raises(ValueError, match=r"expected \(rows, columns\) uint8"):
        png.encode(pixels)
