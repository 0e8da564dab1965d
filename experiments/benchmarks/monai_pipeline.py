"""MONAI's documented pipeline around a network in plain PyTorch, to be measured beside the package's `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.data import MetaTensor
from torch import nn
from torch_unet import TorchUNet

from kits_ml.config import PreprocessingSettings

#: Keras' default; PyTorch's is 1e-5.
KERAS_BATCH_NORM_EPSILON = 1e-3


class MonaiPipeline:
    """LoadImaged, the package's preparation in MONAI's transforms, batches of slices, Invertd, argmax, SaveImaged.

    Args:
        network: from `(batch, 1, rows, columns)` to logits.
        settings: the preparation.
        output: the file to write; its folder must be there.
        batch_size: slices the network takes at once.
        channels_last: the layout of the network and its input.
        bfloat16: autocast.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: PreprocessingSettings,
        *,
        output: Path,
        batch_size: int,
        channels_last: bool = False,
        bfloat16: bool = False,
    ):
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format).eval()
        self.batch_size = batch_size
        self.bfloat16 = bfloat16
        self.before = _preparation(settings)
        self.after = _ending(self.before, output)

    def __call__(self, image: Path) -> None:
        """From the scan's file to the segmentation's."""
        data = self.before({"image": str(image)})
        slices = data["image"].as_tensor().movedim(1, 0)  # (1, slices, rows, columns) -> slices as a batch
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            found = [
                self.network(batch.to(memory_format=self.memory_format)).float().softmax(dim=1)
                for batch in slices.split(self.batch_size)
            ]
        probabilities = torch.cat(found).movedim(0, 1).contiguous()  # (classes, slices, rows, columns)
        data["pred"] = MetaTensor(probabilities.clone())  # of another kind, Invertd leaves it as it is
        self.after(data)


def torch_twin(model: Any, *, base_filters: int) -> TorchUNet:
    """The package's U-Net with its weights in plain PyTorch.

    An up-convolution has four biases a filter here and one there: it gets their mean.

    Args:
        model: a Keras model, `kits_ml.models.unet` of depth 4.
        base_filters: of that model.
    """
    twin = TorchUNet(base_filters=base_filters)
    ours = iter([layer for layer in model.layers if type(layer).__name__ in ("Conv2D", "BatchNormalization")])
    with torch.no_grad():
        for block in twin.encoder:
            _copy_block(ours, block)
        for up, block in zip(reversed(twin.up), reversed(twin.decoder), strict=True):
            _copy_up(next(ours), up)
            _copy_block(ours, block)
        _copy_convolution(next(ours), twin.logits)
    return twin


def _preparation(settings: PreprocessingSettings) -> transforms.Compose:
    def foreground(image: Any) -> Any:
        return image > settings.foreground_hu

    size = (-1, settings.image_size, settings.image_size)
    window = {"a_min": settings.window_min_hu, "a_max": settings.window_max_hu, "b_min": 0, "b_max": 1, "clip": True}
    return transforms.Compose(
        [
            transforms.LoadImaged("image"),
            transforms.EnsureChannelFirstd("image"),
            transforms.Orientationd("image", axcodes="IPL"),
            transforms.CropForegroundd(
                "image",
                source_key="image",
                select_fn=foreground,
                allow_smaller=True,
            ),
            transforms.ScaleIntensityRanged("image", **window),
            transforms.AdjustContrastd("image", gamma=settings.gamma),
            transforms.Resized("image", spatial_size=size, mode="area"),
        ]
    )


def _ending(before: transforms.Compose, output: Path) -> transforms.Compose:
    name = output.name.removesuffix(".nii.gz")
    return transforms.Compose(
        [
            transforms.Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            transforms.AsDiscreted("pred", argmax=True),
            transforms.SaveImaged(
                "pred",
                output_dir=output.parent,
                output_dtype=np.uint8,
                output_name_formatter=lambda metadata, transform: {"subject": name, "idx": None},
                output_postfix="",
                separate_folder=False,
                print_log=False,
            ),
        ]
    )


def _copy_block(ours: Any, block: nn.Sequential) -> None:
    for theirs in block:
        if isinstance(theirs, nn.Conv2d):
            _copy_convolution(next(ours), theirs)
        elif isinstance(theirs, nn.BatchNorm2d):
            _copy_batch_norm(next(ours), theirs)


def _copy_convolution(layer: Any, theirs: nn.Conv2d) -> None:
    kernel, *bias = layer.get_weights()
    theirs.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))  # (rows, columns, in, out) -> (out, in, ...)
    if bias:
        theirs.bias.copy_(torch.from_numpy(bias[0]))


def _copy_batch_norm(layer: Any, theirs: nn.BatchNorm2d) -> None:
    theirs.eps = KERAS_BATCH_NORM_EPSILON
    targets = (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)
    for target, values in zip(targets, layer.get_weights(), strict=True):
        target.copy_(torch.from_numpy(values))


def _copy_up(layer: Any, theirs: nn.ConvTranspose2d) -> None:
    kernel, bias = layer.get_weights()  # (1, 1, in, 4 filters), as (2, 2, filters)
    squares = torch.from_numpy(kernel[0, 0].reshape(kernel.shape[2], 2, 2, -1))
    theirs.weight.copy_(squares.permute(0, 3, 1, 2))  # (in, 2, 2, out) -> (in, out, 2, 2)
    theirs.bias.copy_(torch.from_numpy(bias.reshape(4, -1).mean(axis=0)))
