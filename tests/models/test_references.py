"""With the weights of a reference implementation a network gives what that one gives: the figure, not the size."""

import keras
import numpy as np
import torch
from keras import layers
from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock
from monai.networks.nets import DynUNet

from kits_ml.models.convnext_unet import _blocks, _down_block
from kits_ml.models.deeplab_v3_plus import deeplab_v3_plus
from kits_ml.models.nnunet import nnunet

TRANSPOSED = torch.nn.ConvTranspose2d


def _in_order(network: torch.nn.Module, image: torch.Tensor) -> tuple[list[torch.nn.Module], np.ndarray]:
    """A network's layers with weights in the order of their calls, and its output, channels last."""
    called = []
    for module in network.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda module, *_: called.append(module))
    with torch.no_grad():
        output = network.eval()(image)
    return called, output.numpy().transpose(0, 2, 3, 1)


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    """All weights at random: those of normalisation start as ones and zeros, and would hide where they are."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network


def _weights(module: torch.nn.Module, layer: layers.Layer) -> list[np.ndarray]:
    """A PyTorch layer's weights in the shapes of the Keras layer that does the same; a missing bias is 0."""
    kernel = module.weight.detach().numpy()
    bias = np.zeros(layer.weights[1].shape) if module.bias is None else module.bias.detach().numpy()
    if isinstance(module, TRANSPOSED):  # (in, out, 2, 2) to a 1x1 convolution to 2x2 squares of `out`
        kernel = kernel.transpose(0, 2, 3, 1).reshape(layer.weights[0].shape)
        bias = np.tile(bias, 4)
    elif isinstance(layer, layers.DepthwiseConv2D):  # (channels, 1, rows, columns) to (rows, columns, channels, 1)
        kernel = kernel.transpose(2, 3, 0, 1)
    elif kernel.ndim == 4:  # (out, in, rows, columns) to (rows, columns, in, out), or to a dense layer's (in, out)
        kernel = kernel.transpose(2, 3, 1, 0).reshape(layer.weights[0].shape)
    return [kernel, bias]


def _assert_same(
    model: keras.Model, reference: torch.nn.Module, image: np.ndarray, *, softmax: bool = False, last: tuple = ()
) -> None:
    """Compares outputs after giving the model the reference's weights, layer by layer in the order of calls.

    Args:
        softmax: the reference gives logits.
        last: layers that the reference calls after all others.
    """
    called, expected = _in_order(_randomised(reference), torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    own = sorted((layer for layer in model.layers if layer.weights), key=lambda layer: isinstance(layer, last))
    assert len(own) == len(called)
    for layer, module in zip(own, called, strict=True):
        layer.set_weights(_weights(module, layer))
    found = np.asarray(model.predict_on_batch(image))
    if softmax:
        expected = torch.softmax(torch.from_numpy(expected), dim=-1).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _image(size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, size, size, channels)).astype(np.float32)


def test_nnunet_is_monais_dynunet():
    reference = DynUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=3,
        kernel_size=[3, 3, 3, 3],
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=[4, 8, 16, 16],
        trans_bias=True,
    )
    model = nnunet(image_size=32, num_classes=3, base_filters=4, depth=3, input_channels=3, max_filters=16)
    _assert_same(model, reference, _image(32, 3), softmax=True)


def test_blocks_of_the_convnext_unet_are_mednexts():
    options = {"expansion_ratio": 2, "kernel_size": 3, "use_residual_connection": True, "dim": "2d"}
    inputs = keras.Input((16, 16, 4))
    block = keras.Model(inputs, _blocks(inputs, 1, 2))
    _assert_same(block, MedNeXtBlock(4, 4, **options), _image(16, 4))
    down = keras.Model(inputs, _down_block(inputs, 2))
    shortcut = (layers.Conv2D,)
    _assert_same(down, MedNeXtDownBlock(4, 8, **options), _image(16, 4), last=shortcut)


def test_the_pyramid_of_deeplab_reaches_as_far_at_every_depth():
    for depth, rates in {3: (12, 24, 36), 4: (6, 12, 18), 5: (3, 6, 9)}.items():  # output strides 8, 16 and 32
        model = deeplab_v3_plus(image_size=64, num_classes=3, base_filters=4, depth=depth)
        dilations = {layer.dilation_rate[0] for layer in model.layers if isinstance(layer, layers.Conv2D)}
        # the ResNet's own are 1, and 2 and 4 in stages that should have halved the resolution
        assert dilations - {1, 2, 4} == set(rates), depth
