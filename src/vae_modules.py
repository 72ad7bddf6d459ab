"""Blocks of the pose-conditioned CVAEs. They contain no loss and keep no state between calls.

Feature maps are (B, C, H, W). The first half of the file is the lab template's network, which works at full resolution
everywhere. The second half is the U-Net of the default model.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with leaky ReLUs, added to the input: (B, a, H, W) -> (B, b, H, W)."""

    def __init__(self, num_in: int, num_out: int, negative_slope: float) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, padding=1),
            nn.LeakyReLU(negative_slope),
            nn.Conv2d(num_out, num_out, 3, padding=1),
            nn.LeakyReLU(negative_slope),
        )
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.convolutions(features)


class GatedFeedForward(nn.Module):
    """Two 1x1 convolutions, added to the input, (B, C, H, W). Half of the hidden channels gates the other half."""

    def __init__(self, num_channels: int, negative_slope: float, expansion: int = 2) -> None:
        super().__init__()
        hidden = expansion * num_channels
        self.expand = nn.Conv2d(num_channels, 2 * hidden, 1)
        self.gate = nn.LeakyReLU(negative_slope)
        self.project = nn.Conv2d(hidden, num_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        values, gates = self.expand(features).chunk(2, dim=1)
        return features + self.project(values * self.gate(gates))


class DepthConvBlock(nn.Module):
    """Depthwise separable convolution, added to the input, then `GatedFeedForward`: (B, a, H, W) -> (B, b, H, W)."""

    def __init__(self, num_in: int, num_out: int, negative_slope: float) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(num_in, num_in, 1),
            nn.LeakyReLU(negative_slope),
            nn.Conv2d(num_in, num_in, 3, padding=1, groups=num_in),
            nn.Conv2d(num_in, num_out, 1),
        )
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()
        self.feed_forward = GatedFeedForward(num_out, negative_slope)

    def forward(self, features: Tensor) -> Tensor:
        return self.feed_forward(self.shortcut(features) + self.convolutions(features))


def frame_encoder(slope: float, width: int = 128) -> nn.Sequential:
    """Returns the network (B, 3, H, W) in [0, 1] -> (B, width, H, W); 193,568 parameters at width 128."""
    eighth, quarter, half = width // 8, width // 4, width // 2
    return nn.Sequential(
        ResidualBlock(3, eighth, slope),
        DepthConvBlock(eighth, eighth, slope),
        ResidualBlock(eighth, quarter, slope),
        DepthConvBlock(quarter, quarter, slope),
        ResidualBlock(quarter, half, slope),
        DepthConvBlock(half, half, slope),
        nn.Conv2d(half, width, 3, padding=1),
    )


def pose_encoder(slope: float, width: int = 128) -> nn.Sequential:
    """Returns the network (B, 3, H, W) in [0, 1] -> (B, width / 4, H, W); 16,832 parameters at width 128.

    It uses group norm: batch norm would behave differently for a training batch and for a rollout of one clip.
    """
    eighth = width // 8
    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, eighth, 7),
        nn.GroupNorm(4, eighth),
        nn.LeakyReLU(slope),
        ResidualBlock(eighth, 2 * eighth, slope),
    )


def gaussian_predictor(num_latents: int, slope: float, width: int = 128) -> nn.Sequential:
    """Returns the posterior (B, 1.25 * width, H, W) -> (B, 2 * num_latents, H, W), mean first.

    It has 8,289 parameters for 12 latents at width 128.
    """
    quarter = num_latents // 4
    half = num_latents // 2
    return nn.Sequential(
        ResidualBlock(width + width // 4, quarter, slope),
        DepthConvBlock(quarter, quarter, slope),
        ResidualBlock(quarter, half, slope),
        DepthConvBlock(half, half, slope),
        ResidualBlock(half, num_latents, slope),
        nn.LeakyReLU(slope),
        nn.Conv2d(num_latents, 2 * num_latents, 1),
    )


def decoder_fusion(num_latents: int, slope: float, width: int = 128) -> nn.Sequential:
    """Returns the network (B, 1.25 * width + num_latents, H, W) -> (B, 1.5 * width, H, W).

    It has 617,768 parameters for 12 latents at width 128.
    """
    num_in = width + width // 4 + num_latents
    quarter = num_in // 4
    half = num_in // 2
    return nn.Sequential(
        DepthConvBlock(num_in, num_in, slope),
        ResidualBlock(num_in, quarter, slope),
        DepthConvBlock(quarter, half, slope),
        ResidualBlock(half, half, slope),
        DepthConvBlock(half, 3 * width // 4, slope),
        nn.Conv2d(3 * width // 4, 3 * width // 2, 1),
    )


def generator(slope: float, width: int = 128) -> nn.Sequential:
    """Returns the network (B, 1.5 * width, H, W) -> (B, 3, H, W), unbounded; 749,163 parameters at width 128."""
    full = 3 * width // 2
    half, quarter, eighth = full // 2, full // 4, full // 8
    return nn.Sequential(
        DepthConvBlock(full, full, slope),
        ResidualBlock(full, half, slope),
        DepthConvBlock(half, half, slope),
        ResidualBlock(half, quarter, slope),
        DepthConvBlock(quarter, quarter, slope),
        ResidualBlock(quarter, eighth, slope),
        DepthConvBlock(eighth, eighth, slope),
        nn.Conv2d(eighth, 3, 1),
    )


class NormedResidualBlock(nn.Module):
    """Two times group norm, SiLU and a 3x3 convolution, added to the input: (B, a, H, W) -> (B, b, H, W).

    The second convolution is initialised with zeros, so a deep stack of blocks is the identity at first.
    """

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.GroupNorm(8, num_in),
            nn.SiLU(),
            nn.Conv2d(num_in, num_out, 3, padding=1),
            nn.GroupNorm(8, num_out),
            nn.SiLU(),
            zero_initialised(nn.Conv2d(num_out, num_out, 3, padding=1)),
        )
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.convolutions(features)


class UNet(nn.Module):
    """A U-Net with a latent: (B, C_in, H, W), (B, num_latents, h, w) -> (B, width, H, W).

    Level i works at 1 / 2^i of the resolution and has (i + 1) * width channels. H and W must be multiples of
    2^(num_levels - 1). The latent scales and shifts the features of the coarsest level. It is one vector for the whole
    picture (h = w = 1) or one vector for each position of the coarsest level.
    """

    def __init__(self, num_in: int, width: int, *, num_levels: int, num_blocks: int, num_latents: int) -> None:
        super().__init__()
        channels = [width * (level + 1) for level in range(num_levels)]

        def blocks(num_first: int, num_channels: int) -> nn.Sequential:
            sizes = [num_first] + [num_channels] * num_blocks
            return nn.Sequential(*(NormedResidualBlock(a, b) for a, b in pairwise(sizes)))

        self.entry = nn.Conv2d(num_in, width, 3, padding=1)
        self.down_blocks = nn.ModuleList(blocks(c, c) for c in channels[:-1])
        self.downsample = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(channels)
        )
        self.modulation = zero_initialised(nn.Linear(num_latents, 2 * channels[-1]))
        self.middle = blocks(channels[-1], channels[-1])
        self.upsample = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(channels))
        self.up_blocks = nn.ModuleList(blocks(2 * c, c) for c in channels[:-1])

    def forward(self, inputs: Tensor, latent: Tensor) -> Tensor:
        features = self.entry(inputs)
        skips = []
        for blocks, downsample in zip(self.down_blocks, self.downsample, strict=True):
            features = blocks(features)
            skips.append(features)
            features = downsample(features)
        scale, offset = self.modulation(latent.movedim(1, -1)).movedim(-1, 1).chunk(2, dim=1)
        features = self.middle(features * (1 + scale) + offset)
        for blocks, upsample, skip in zip(
            reversed(self.up_blocks), reversed(self.upsample), reversed(skips), strict=True
        ):
            coarse = functional.interpolate(upsample(features), scale_factor=2.0, mode="nearest")
            features = blocks(torch.cat([coarse, skip], dim=1))
        return features


class PooledPosterior(nn.Module):
    """The posterior of a `UNet`: (B, C_in, H, W) -> (B, 2 * num_latents, h, w), mean first.

    Strided convolutions, then means over a grid of h x w parts of the picture. No layer is initialised with zeros. The
    modulation of the U-Net is; if both were, neither would learn until noise changed one of them.
    """

    def __init__(self, num_in: int, width: int, num_latents: int, latent_grid: tuple[int, int]) -> None:
        super().__init__()
        self.latent_grid = latent_grid  # (h, w); (1, 1) is the mean over the whole picture
        self.features = nn.Sequential(
            nn.Conv2d(num_in, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.SiLU(),
        )
        self.head = nn.Linear(2 * width, 2 * num_latents)

    def forward(self, inputs: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(self.features(inputs), self.latent_grid)
        return self.head(pooled.movedim(1, -1)).movedim(-1, 1)


def zero_initialised(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Sets the weights and biases of a layer to zero and returns the layer."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None, "the layers used here all have a bias"
    nn.init.zeros_(layer.bias)
    return layer
