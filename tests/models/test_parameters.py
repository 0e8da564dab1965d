"""Parameter counts are the papers' or the reference implementations', with each difference in a line of arithmetic.

Most references have a convolution's bias before a normalisation, where it does nothing; ours don't. So trainable
parameters of a PyTorch reference are ours plus one a filter of each convolution without bias. An up-convolution of
ours has a bias for each of its four pixels: three more a filter than a transposed convolution.
"""

import keras
import pytest
from keras import layers

from kits_ml.models import ARCHITECTURES


def _build(name: str, **options) -> keras.Model:
    return ARCHITECTURES[name].builder(**{"image_size": 32, "input_channels": 3, "num_classes": 1, **options})


def _trainable(model: keras.Model) -> int:
    return sum(weights.numpy().size for weights in model.trainable_weights)


def _missing_biases(model: keras.Model) -> int:
    return sum(layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D) and not layer.use_bias)


def _up_biases(filters: list[int]) -> int:
    return 3 * sum(filters)


def test_residual_unet():
    # The paper's 7.8 M are the 3x3 convolutions; 1x1 shortcuts, normalisation and head come to 0.4 M.
    model = _build("residual_unet", base_filters=64, depth=3)
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert sum(kernel.numpy().size for kernel in kernels if kernel.shape[0] == 3) == 7_780_032


def test_attention_unet():
    # A gate of F filters, by the paper's equations with 2x2 strided W_x: W_x 4 F^2, W_g 2 F^2 + F, psi F + 1.
    gates = sum(4 * f * f + 2 * f * f + f + f + 1 for f in (128, 256, 512))
    assert _build("attention_unet", base_filters=64).count_params() == (
        _build("unet", base_filters=64).count_params() + gates
    )


def test_unet_plus_plus():
    # "9.04M" in 1807.10165, which has no batch normalisation: a bias in place of four numbers a filter.
    # Up-convolutions lead to each node that is not the encoder's: 4 nodes of level 0, 3 of level 1, ...
    model = _build("unet_plus_plus", base_filters=32)
    up_biases = _up_biases([32] * 4 + [64] * 3 + [128] * 2 + [256])
    assert model.count_params() - 3 * _missing_biases(model) - up_biases == 9_042_177


def test_unet_3_plus():
    # "26.97M" in 2004.08790
    model = _build("unet_3_plus", base_filters=64)
    assert _trainable(model) + _missing_biases(model) == 26_971_777


def test_r2_unet():
    # R2U_Net(img_ch=3, output_ch=1, t=2) of github.com/LeeJunHyun/Image_Segmentation
    model = _build("r2_unet", base_filters=64)
    assert _trainable(model) + _missing_biases(model) == 39_091_393
    assert _build("r2_unet", base_filters=64, recurrent_steps=5).count_params() == model.count_params()


def test_multires_unet():
    # 7,262,750 in 1902.04049, where normalisation after a convolution has no scale (one number a filter less),
    # and the head has a normalisation without scale (3) in place of a bias (1).
    model = _build("multires_unet", base_filters=32)
    up_biases = _up_biases([32, 64, 128, 256])
    assert model.count_params() - _missing_biases(model) - up_biases + 3 - 1 == 7_262_750


def test_dense_unet():
    # "3.5M" for FC-DenseNet67 in 1611.09326: 48 filters, growth rate 16, 5 layers a block, 11 classes; to the last
    # number what the layers of its authors' code come to (github.com/SimJeg/FC-DenseNet)
    model = _build("dense_unet", base_filters=48, depth=5, num_classes=11)
    assert model.count_params() == 3_502_923


def test_channel_attention():
    # Two dense layers after each pair of convolutions, C -> C / 16 -> C with biases; CBAM adds a 7x7 convolution of
    # two maps to one and its normalisation.
    widths = [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    squeezes = sum(2 * width * (width // 16) + width // 16 + width for width in widths)
    plain = _build("unet", base_filters=64).count_params()
    assert _build("se_unet", base_filters=64).count_params() == plain + squeezes
    assert _build("cbam_unet", base_filters=64).count_params() == plain + squeezes + 9 * (2 * 7 * 7 + 4)


@pytest.mark.parametrize(
    ("name", "depth", "reference"),
    [
        # dynamic-network-architectures 0.4.4 (PlainConvUNet, ResidualEncoderUNet), Conv2d, 32 to 512 features,
        # InstanceNorm2d with affine weights, conv_bias, 3 classes, less the heads that only deep supervision uses
        ("nnunet", 4, 7_765_475),
        ("nnunet", 7, 46_320_611),
        ("residual_encoder_unet", 4, 37_715_491),
        ("residual_encoder_unet", 7, 140_013_091),
    ],
)
def test_nnunets(name, depth, reference):
    model = _build(name, image_size=128, input_channels=1, num_classes=3, base_filters=32, depth=depth)
    filters = [min(512, 32 * 2**level) for level in range(depth)]
    assert model.count_params() - _up_biases(filters) == reference


def test_convnext_unet():
    # MONAI 1.6: MedNeXt(spatial_dims=2, init_filters=32, kernel_size=3, use_residual_connection=True), 3 classes
    model = _build("convnext_unet", input_channels=1, num_classes=3, base_filters=32)
    assert model.count_params() == 5_472_035


def test_deeplab_v3_plus():
    resnet = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's ResNet-50 less its classifier
    pyramid = 2048 * 256 + 3 * 9 * 2048 * 256 + 2048 * 256 + 5 * 256 * 256  # 1x1, three dilated, mean; mixed
    decoder = 256 * 48 + 9 * (256 + 48) * 256 + 9 * 256 * 256
    scales = 2 * (5 * 256 + 256 + 48 + 2 * 256)  # normalisation's, of pyramid and decoder
    head = 256 * 21 + 21
    model = _build("deeplab_v3_plus", base_filters=64, num_classes=21, image_size=64)
    assert _trainable(model) == resnet + pyramid + decoder + scales + head


def test_segformer():
    # "3.8M" for B0 in 2105.15203; nvidia/segformer-b0-finetuned-ade-512-512, 150 classes, has 3,752,694
    model = _build("segformer", base_filters=32, depth=5, num_classes=150)
    assert _trainable(model) == 3_752_694
