"""With the weights of a reference implementation a network gives what that one gives: the figure, not the size."""

import keras
import numpy as np
import pytest
import torch
from keras import layers
from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock
from monai.networks.nets import DynUNet

from kits_ml.models.attention_unet import _attention_gate
from kits_ml.models.cbam_unet import _attend
from kits_ml.models.convnext_unet import _block, _down_block
from kits_ml.models.deeplab_v3_plus import deeplab_v3_plus
from kits_ml.models.nnunet import nnunet
from kits_ml.models.r2_unet import _recurrent_residual_unit
from kits_ml.models.residual_encoder_unet import _residual_block
from kits_ml.models.segformer import _attention, _mix_feed_forward
from tests.models import reference_blocks

TRANSPOSED = torch.nn.ConvTranspose2d


def _in_order(network: torch.nn.Module, images: list[np.ndarray]) -> tuple[list[torch.nn.Module], np.ndarray]:
    """A network's layers with weights in the order of their first calls, and its output, channels last."""
    called: dict[torch.nn.Module, None] = {}
    for module in network.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda module, *_: called.setdefault(module))
    with torch.no_grad():
        output = network.eval()(*(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()) for image in images))
    return list(called), output.numpy().transpose(0, 2, 3, 1)


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    """All weights at random: those of normalisation start as ones and zeros, and would hide where they are."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return network


def _weights(module: torch.nn.Module, layer: layers.Layer) -> list[np.ndarray]:
    """A PyTorch layer's weights in the shapes of the Keras layer that does the same; a missing bias is 0 or none."""
    if isinstance(module, torch.nn.BatchNorm2d):
        return [one.detach().numpy() for one in (module.weight, module.bias, module.running_mean, module.running_var)]
    kernel = module.weight.detach().numpy()
    if module.bias is None and len(layer.weights) == 1:
        return [kernel.transpose(2, 3, 1, 0)]
    bias = np.zeros(layer.weights[1].shape) if module.bias is None else module.bias.detach().numpy()
    if isinstance(module, TRANSPOSED):  # (in, out, 2, 2) to a 1x1 convolution to 2x2 squares of `out`
        kernel = kernel.transpose(0, 2, 3, 1).reshape(layer.weights[0].shape)
        bias = np.tile(bias, 4)
    elif isinstance(layer, layers.DepthwiseConv2D):  # (channels, 1, rows, columns) to (rows, columns, channels, 1)
        kernel = kernel.transpose(2, 3, 0, 1)
    elif kernel.ndim == 4:  # (out, in, rows, columns) to (rows, columns, in, out), or to a dense layer's (in, out)
        kernel = kernel.transpose(2, 3, 1, 0).reshape(layer.weights[0].shape)
    elif kernel.ndim == 2:
        kernel = kernel.T
    return [kernel, bias]


def _assert_same(
    model: keras.Model, reference: torch.nn.Module, *images: np.ndarray, softmax: bool = False, last: tuple = ()
) -> None:
    """Compares outputs after giving the model the reference's weights, layer by layer in the order of calls.

    Args:
        softmax: the reference gives logits.
        last: layers that the reference calls after all others.
    """
    called, expected = _in_order(_randomised(reference), list(images))
    own = sorted((layer for layer in model.layers if layer.weights), key=lambda layer: isinstance(layer, last))
    assert len(own) == len(called)
    for layer, module in zip(own, called, strict=True):
        layer.set_weights(_weights(module, layer))
    found = np.asarray(model.predict_on_batch(list(images) if len(images) > 1 else images[0]))
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
    block = keras.Model(inputs, _block(inputs))
    _assert_same(block, MedNeXtBlock(4, 4, **options), _image(16, 4))
    down = keras.Model(inputs, _down_block(inputs))
    shortcut = (layers.Conv2D,)
    _assert_same(down, MedNeXtDownBlock(4, 8, **options), _image(16, 4), last=shortcut)


@pytest.mark.parametrize(("filters", "stride"), [(4, 1), (8, 2)])
def test_blocks_of_the_residual_encoder_are_nnunets(filters, stride):
    inputs = keras.Input((16, 16, 4))
    block = keras.Model(inputs, _residual_block(inputs, filters, stride=stride))
    _assert_same(block, reference_blocks.BasicBlockD(4, filters, stride), _image(16, 4))


def test_the_attention_gate_is_figure_2_of_its_paper():
    skip, gating = keras.Input((16, 16, 4)), keras.Input((8, 8, 8))
    gate = keras.Model([skip, gating], _attention_gate(skip, gating))
    _assert_same(gate, reference_blocks.AttentionGate(4), _image(16, 4), _image(8, 8))


def test_attention_to_channels_and_places_is_cbams():
    inputs = keras.Input((16, 16, 64))
    _assert_same(keras.Model(inputs, _attend(inputs)), reference_blocks.CBAM(64), _image(16, 64))


def test_recurrent_residual_units_are_r2_unets():
    inputs = keras.Input((16, 16, 3))
    unit = keras.Model(inputs, _recurrent_residual_unit(inputs, 4, 2))
    _assert_same(unit, reference_blocks.RecurrentResidualUnit(3, 4, steps=2), _image(16, 3))


def test_the_mixed_feed_forward_network_is_segformers():
    inputs = keras.Input((16, 16, 4))
    _assert_same(keras.Model(inputs, _mix_feed_forward(inputs)), reference_blocks.MixFFN(4), _image(16, 4))


def test_attention_to_coarser_patches_is_segformers():
    inputs = keras.Input((16, 16, 8))
    model = keras.Model(inputs, _attention(inputs, num_heads=2, reduction=4))
    reference = _randomised(reference_blocks.EfficientAttention(8, num_heads=2, reduction=4))
    (called, expected), image = _in_order(reference, [_image(16, 8)]), _image(16, 8)
    own = [layer for layer in model.layers if layer.weights]
    for layer, module in zip(own[:2], called[:2], strict=True):
        layer.set_weights(_weights(module, layer))
    heads = [weights for module in called[2:] for weights in (module.weight.detach().numpy().T, module.bias.detach())]
    own[2].set_weights([value.reshape(here.shape) for value, here in zip(heads, own[2].get_weights(), strict=True)])
    np.testing.assert_allclose(np.asarray(model.predict_on_batch(image)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("image_size", "depth", "rates"),
    [  # the paper's, at output strides of 16, 8 and 32, and what reaches as far on the smaller features here
        (528, 4, (6, 12, 18)),
        (528, 3, (12, 24, 36)),
        (544, 5, (3, 6, 9)),
        (256, 4, (3, 6, 9)),
        (128, 3, (3, 6, 9)),
    ],
)
def test_the_pyramid_of_deeplab_reaches_as_far_on_features_of_every_size(image_size, depth, rates):
    model = deeplab_v3_plus(image_size=image_size, num_classes=3, base_filters=4, depth=depth)
    dilations = {layer.dilation_rate[0] for layer in model.layers if isinstance(layer, layers.Conv2D)}
    # the ResNet's own are 1, and 2 and 4 in stages that should have halved the resolution
    assert dilations - {1, 2, 4} == set(rates)
