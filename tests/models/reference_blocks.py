"""Blocks in plain PyTorch, written after the papers and their authors' code, to compare ours with.

All take `(batch, channels, rows, columns)`. Batch normalisation has Keras' epsilon.
"""

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-3


class BasicBlockD(nn.Module):
    """nnU-Net's residual block (dynamic-network-architectures): instance norm, leaky ReLU, averaged shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1)
        self.norm1 = nn.InstanceNorm2d(filters, eps=1e-5, affine=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(filters, eps=1e-5, affine=True)
        self.pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.project = None
        if channels != filters:
            self.project = nn.Sequential(
                nn.Conv2d(channels, filters, 1, bias=False), nn.InstanceNorm2d(filters, eps=1e-5, affine=True)
            )

    def forward(self, x):
        shortcut = self.pool(x)
        y = self.norm1(self.conv1(x))
        y = self.conv2(functional.leaky_relu(y, 0.01))
        # the order of calls is Keras': the two convolutions before the two normalisations that are added
        shortcut = self.project[0](shortcut) if self.project else shortcut
        y = self.norm2(y)
        shortcut = self.project[1](shortcut) if self.project else shortcut
        return functional.leaky_relu(y + shortcut, 0.01)


class AttentionGate(nn.Module):
    """Oktay 2018, figure 2 and equations 1 and 2, with `filters` intermediate ones."""

    def __init__(self, filters: int):
        super().__init__()
        self.theta = nn.Conv2d(filters, filters, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(2 * filters, filters, 1)
        self.psi = nn.Conv2d(filters, 1, 1)

    def forward(self, x, gating):
        coefficients = torch.sigmoid(self.psi(torch.relu(self.theta(x) + self.phi(gating))))
        return x * functional.interpolate(coefficients, scale_factor=2, mode="bilinear", align_corners=False)


class CBAM(nn.Module):
    """Woo 2018, equations 2 and 3: a shared network on mean and maximum, then a 7x7 convolution of both."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.hidden = nn.Linear(channels, channels // reduction)
        self.judge = nn.Linear(channels // reduction, channels)
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, eps=EPSILON)

    def forward(self, x):
        judged = [self.judge(torch.relu(self.hidden(pooled))) for pooled in (x.mean((2, 3)), x.amax((2, 3)))]
        x = x * torch.sigmoid(sum(judged))[:, :, None, None]
        both = torch.stack([x.mean(1), x.amax(1)], dim=1)
        return x * torch.sigmoid(self.norm(self.places(both)))


class RecurrentResidualUnit(nn.Module):
    """RRCNN_block of github.com/LeeJunHyun/Image_Segmentation, whose convolutions' biases do nothing."""

    def __init__(self, channels: int, filters: int, *, steps: int):
        super().__init__()
        self.steps = steps
        self.first = nn.Conv2d(channels, filters, 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(filters, filters, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, eps=EPSILON) for _ in range(2))

    def forward(self, x):
        x = y = self.first(x)
        for convolve, normalise in zip(self.convolutions, self.norms, strict=True):
            seen = y
            y = torch.relu(normalise(convolve(seen)))
            for _ in range(self.steps):
                y = torch.relu(normalise(convolve(seen + y)))
        return x + y


class MixFFN(nn.Module):
    """SegFormer's (NVlabs): dense, 3x3 depthwise, GELU, dense."""

    def __init__(self, channels: int):
        super().__init__()
        self.widen = nn.Linear(channels, 4 * channels)
        self.depthwise = nn.Conv2d(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x):
        y = self.depthwise(self.widen(x.movedim(1, -1)).movedim(-1, 1))
        return self.narrow(functional.gelu(y).movedim(1, -1)).movedim(-1, 1)


class EfficientAttention(nn.Module):
    """SegFormer's (NVlabs), with keys and values of patches that are `reduction` times coarser."""

    def __init__(self, channels: int, *, num_heads: int, reduction: int):
        super().__init__()
        self.num_heads = num_heads
        self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.query, self.key, self.value, self.project = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x):
        rows, columns = x.shape[2:]
        coarse = self.norm(self.reduce(x).flatten(2).transpose(1, 2))
        places = x.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(one).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, one in ((self.query, places), (self.key, coarse), (self.value, coarse))
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = self.project(attended.transpose(1, 2).flatten(2))
        return attended.transpose(1, 2).unflatten(-1, (rows, columns))
