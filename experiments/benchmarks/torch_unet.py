"""The package's U-Net in plain PyTorch, layer for layer, to be measured beside it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


class TorchUNet(nn.Module):
    """`kits_ml.models.unet`: padded 3x3 convolutions, batch normalisation, ReLU, 2x2 up-convolutions.

    Args:
        base_filters: filters of the first level, doubled at each level below.
        depth: how often the resolution is halved.
        num_classes: channels of the logits.
    """

    def __init__(self, *, base_filters: int = 16, depth: int = 4, num_classes: int = 3):
        super().__init__()
        filters = [base_filters * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            double_convolution(narrow, wide) for narrow, wide in zip([1, *filters], filters, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * one, one, 2, stride=2) for one in filters[:-1])
        self.decoder = nn.ModuleList(double_convolution(2 * one, one) for one in filters[:-1])
        self.logits = nn.Conv2d(filters[0], num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, 1, rows, columns)` -> logits `(batch, num_classes, rows, columns)`."""
        skips = []
        for number, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if number else x)
            skips.append(x)
        skips.pop()
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], dim=1))
        return self.logits(x)


def double_convolution(channels: int, filters: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)),
        *(nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)),
    )


def folded(network: TorchUNet) -> TorchUNet:
    """For prediction: each batch normalisation becomes part of its convolution, as in this package."""
    network = copy.deepcopy(network).eval()
    for block in (*network.encoder, *network.decoder):
        for place in (0, 3):
            block[place], block[place + 1] = fuse_conv_bn_eval(block[place], block[place + 1]), nn.Identity()
    return network


def dice_crossentropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The package's loss `dice_crossentropy`: cross-entropy plus soft Dice of the foreground, over the batch.

    Args:
        logits: `(batch, classes, rows, columns)`.
        labels: `(batch, rows, columns)` whole numbers.
    """
    logits = logits.float()
    one_hot = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:]
    foreground = logits.softmax(dim=1)[:, 1:]
    axes = (0, 2, 3)
    total = one_hot.sum(axes) + foreground.sum(axes)
    dice = (2 * (one_hot * foreground).sum(axes) + 1) / (total + 1)
    return functional.cross_entropy(logits, labels) + 1 - dice.mean()
