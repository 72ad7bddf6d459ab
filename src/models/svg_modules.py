"""Blocks of the SVG models. They contain no loss. Recurrent state is an input and an output, never stored in a block.

Frames are (B, 3, 64, 64) in [0, 1]. All use group norm, because batch norm would mix the statistics of true and
predicted frames.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.vae_modules import NormedResidualBlock, zero_initialised

NEGATIVE_SLOPE = 0.2
GROUPS = 8
LEVELS = (
    (1, 1),
    (2, 2),
    (4, 4, 4),
    (8, 8, 8),
)  # channels of the layers at 64, 32, 16, 8 pixels, as multiples of `width`

Hidden = tuple[tuple[Tensor, Tensor], ...]  # (h, c) of each layer of an LSTM, (B, num_hidden) each
Skips = tuple[Tensor, ...]  # feature maps at 64, 32, 16, 8 pixels


def vgg_layer(num_in: int, num_out: int) -> nn.Sequential:
    """Returns a 3x3 convolution with group norm and leaky ReLU, (B, a, H, W) -> (B, b, H, W)."""
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, padding=1), nn.GroupNorm(GROUPS, num_out), nn.LeakyReLU(NEGATIVE_SLOPE)
    )


def vgg_stack(*channels: int) -> nn.Sequential:
    """Returns a stack of `vgg_layer`s, one from each number of channels to the next."""
    return nn.Sequential(*(vgg_layer(a, b) for a, b in pairwise(channels)))


class FrameEncoder(nn.Module):
    """A VGG-style encoder: (B, 3, 64, 64) -> features (B, num_features) in [-1, 1], skips at 64, 32, 16, 8 pixels."""

    def __init__(self, width: int, num_features: int) -> None:
        super().__init__()
        inputs = (3, *(width * layers[-1] for layers in LEVELS))
        self.levels = nn.ModuleList(
            vgg_stack(num_in, *(width * factor for factor in layers))
            for num_in, layers in zip(inputs[:-1], LEVELS, strict=True)
        )
        self.head = nn.Sequential(nn.Conv2d(inputs[-1], num_features, 4), nn.GroupNorm(GROUPS, num_features), nn.Tanh())

    def forward(self, frames: Tensor) -> tuple[Tensor, Skips]:
        skips = []
        features = frames
        for level in self.levels:
            features = level(features)
            skips.append(features)
            features = functional.max_pool2d(features, 2)
        return self.head(features).flatten(1), tuple(skips)


class FrameDecoder(nn.Module):
    """The encoder mirrored: features (B, num_features) and skips -> (B, 3, 64, 64) in [0, 1]."""

    def __init__(self, width: int, num_features: int) -> None:
        super().__init__()
        deepest = width * LEVELS[-1][-1]
        self.head = nn.Sequential(
            nn.ConvTranspose2d(num_features, deepest, 4),
            nn.GroupNorm(GROUPS, deepest),
            nn.LeakyReLU(NEGATIVE_SLOPE),
        )
        levels = []
        for level, layers in enumerate(LEVELS):  # the last layer has the channels of the next finer level
            finer = LEVELS[level - 1][-1:] if level else ()
            levels.append(vgg_stack(*(width * factor for factor in (2 * layers[-1], *layers[:-1], *finer))))
        self.levels = nn.ModuleList(levels)
        self.picture = nn.ConvTranspose2d(width, 3, 3, padding=1)

    def forward(self, features: Tensor, skips: Skips) -> Tensor:
        maps = self.head(features[:, :, None, None])
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = level(torch.cat([maps, skip], dim=1))
        return self.picture(maps).float().sigmoid()


class LSTM(nn.Module):
    """A linear layer and a stack of LSTM cells. One step: (B, num_in), state -> (B, num_hidden), state."""

    def __init__(self, num_in: int, num_hidden: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(num_in, num_hidden)
        self.cells = nn.ModuleList(nn.LSTMCell(num_hidden, num_hidden) for _ in range(num_layers))

    def start(self, inputs: Tensor) -> Hidden:
        """Returns the zero state for the batch of `inputs`."""
        zeros = inputs.new_zeros(len(inputs), self.embedding.out_features)
        return tuple((zeros, zeros) for _ in self.cells)

    def forward(self, inputs: Tensor, state: Hidden) -> tuple[Tensor, Hidden]:
        output = self.embedding(inputs)
        after = []
        for cell, before in zip(self.cells, state, strict=True):
            output, memory = cell(output, before)
            after.append((output, memory))
        return output, tuple(after)


class GaussianLSTM(nn.Module):
    """An LSTM whose output is a Gaussian.

    One step: (B, num_in), state -> mean (B, num_out), raw log variance (B, num_out), state.
    """

    def __init__(self, num_in: int, num_hidden: int, num_out: int) -> None:
        super().__init__()
        self.lstm = LSTM(num_in, num_hidden, 1)
        self.head = nn.Linear(num_hidden, 2 * num_out)

    def start(self, inputs: Tensor) -> Hidden:
        """Returns the zero state for the batch of `inputs`."""
        return self.lstm.start(inputs)

    def forward(self, inputs: Tensor, state: Hidden) -> tuple[Tensor, Tensor, Hidden]:
        output, after = self.lstm(inputs, state)
        mean, log_variance = self.head(output).float().chunk(2, dim=1)
        return mean, log_variance, after


class FramePredictor(nn.Module):
    """An LSTM that predicts a frame's features: [h_{t-1}, z_t, conditions] -> g_t, (B, num_features) in [-1, 1]."""

    def __init__(self, num_in: int, num_hidden: int, num_features: int) -> None:
        super().__init__()
        self.lstm = LSTM(num_in, num_hidden, 2)
        self.head = nn.Sequential(nn.Linear(num_hidden, num_features), nn.Tanh())

    def start(self, inputs: Tensor) -> Hidden:
        """Returns the zero state for the batch of `inputs`."""
        return self.lstm.start(inputs)

    def forward(self, inputs: Tensor, state: Hidden) -> tuple[Tensor, Hidden]:
        output, after = self.lstm(inputs, state)
        return self.head(output), after


class MapEncoder(nn.Module):
    """An encoder (B, 3, H, W) -> features (B, C, H/2, W/2) and (B, 2C, H/4, W/4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, channels, 3, padding=1), NormedResidualBlock(channels, channels)
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1), NormedResidualBlock(2 * channels, 2 * channels)
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(frames)
        return fine, self.coarse(fine)


class NumberMap(nn.Module):
    """Numbers (B, N) -> a map (B, C, H, W): at each pixel a small network of the numbers and of a learned embedding.

    The network can learn where a position of the robot appears in the picture, without knowing the camera.
    """

    def __init__(self, num_in: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.numbers = nn.Linear(num_in, channels)
        self.place = nn.Parameter(0.5 * torch.randn(channels, height, width))
        self.mix = nn.Sequential(
            nn.SiLU(), nn.Conv2d(channels, channels, 1), nn.SiLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, numbers: Tensor) -> Tensor:
        return self.mix(self.numbers(numbers)[:, :, None, None] + self.place)


class ConvGRU(nn.Module):
    """A convolutional gated recurrent unit: (B, C, H, W), (B, N, H, W) -> (B, C, H, W); Ballas et al. 2016."""

    def __init__(self, channels: int, num_in: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels + num_in, 2 * channels, 3, padding=1)
        self.candidate = nn.Sequential(
            nn.Conv2d(channels + num_in, channels, 3, padding=1), NormedResidualBlock(channels, channels), nn.Tanh()
        )

    def forward(self, memory: Tensor, inputs: Tensor) -> Tensor:
        update, reset = self.gates(torch.cat([memory, inputs], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([reset * memory, inputs], dim=1))
        return memory + update * (candidate - memory)


class MapDecoder(nn.Module):
    """A decoder: memory (B, 2C, H/4, W/4) and two maps (B, C, H/2, W/2) -> RGB and a mask, (B, 4, H, W) in [0, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = nn.Sequential(
            NormedResidualBlock(3 * channels, channels), NormedResidualBlock(channels, channels)
        )
        self.head = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, 16, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, memory: Tensor, reference_features: Tensor, condition_map: Tensor) -> Tensor:
        coarse = functional.interpolate(self.expand(memory), scale_factor=2.0, mode="nearest")
        return self.head(self.blocks(torch.cat([coarse, reference_features, condition_map], dim=1))).float().sigmoid()


class GaussianHead(nn.Module):
    """A network (B, num_in) -> mean and raw log variance, (B, num_out) each. Both are zero at first."""

    def __init__(self, num_in: int, num_hidden: int, num_out: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(num_in, num_hidden), nn.SiLU(), zero_initialised(nn.Linear(num_hidden, 2 * num_out))
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.network(inputs).float().chunk(2, dim=1)
        return mean, raw
