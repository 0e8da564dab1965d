"""The plain U-Net has the paper's figure."""

import numpy as np
import pytest

from kits_ml.models.unet import unet


def test_parameters_are_the_papers():
    # The paper's network has 31,030,658 parameters with 1 input channel and 2 classes. Ours adds
    # - batch normalisation's four numbers a filter in place of the bias of each 3x3 convolution: 3 more a filter;
    # - a bias for each of the four pixels of an up-convolution in place of one for all: 3 more a filter.
    model = unet(image_size=32, num_classes=2, base_filters=64, depth=4)
    convolutions = 2 * (64 + 128 + 256 + 512 + 1024 + 512 + 256 + 128 + 64)
    up_convolutions = 512 + 256 + 128 + 64
    assert model.count_params() == 31_030_658 + 3 * convolutions + 3 * up_convolutions


@pytest.mark.parametrize(("depth", "base_filters", "image_size"), [(1, 2, 16), (2, 4, 48), (4, 3, 32)])
def test_any_depth_and_width(depth, base_filters, image_size):
    model = unet(image_size=image_size, num_classes=3, base_filters=base_filters, depth=depth, input_channels=2)
    image = np.random.default_rng(0).random((2, image_size, image_size, 2), np.float32)
    probabilities = np.asarray(model.predict_on_batch(image))
    assert probabilities.shape == (2, image_size, image_size, 3)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
