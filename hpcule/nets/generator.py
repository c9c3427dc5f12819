"""The generator of unlearnable clusters (Zhang et al. 2023, https://arxiv.org/abs/2301.01217): noise in, delta out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from hpcule.nets.seeded import seeded_weights

WIDTH = 64
RESIDUAL_BLOCKS = 6


class ResidualBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions with BatchNorm, added to the input; no ReLU after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [b, width, H, W] to the same shape."""
        change: torch.Tensor = self.layers(images)
        return images + change


class ResnetGenerator(nn.Module):
    """Encoder (two stride-2 convolutions), six residual blocks, decoder (two transposed convolutions), tanh.

    7,841,411 parameters for 3 channels. It is made to run in training mode on one noise image, whose own statistics
    BatchNorm then uses: in evaluation mode a fresh generator gives an entirely different output.

    Args:
        channels: of the noise and of the output, 1 or 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, WIDTH, 7, bias=False),
            *_norm_relu(WIDTH),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1, bias=False),
            *_norm_relu(2 * WIDTH),
            nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, stride=2, padding=1, bias=False),
            *_norm_relu(4 * WIDTH),
            *(ResidualBlock(4 * WIDTH) for _ in range(RESIDUAL_BLOCKS)),
            nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 3, stride=2, padding=1, output_padding=1, bias=False),
            *_norm_relu(2 * WIDTH),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 3, stride=2, padding=1, output_padding=1, bias=False),
            *_norm_relu(WIDTH),
            nn.ReflectionPad2d(3),
            nn.Conv2d(WIDTH, channels, 7),
            nn.Tanh(),
        )

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Map noise [b, C, H, W] in [0, 1] to [b, C, H, W] in (-1, 1); H and W of at least 5 pixels.

        The layers need multiples of 4: other sizes are computed on the next multiple, the last row and column
        repeated, and cropped.
        """
        height, width = noise.shape[-2:]
        padded = functional.pad(noise, (0, -width % 4, 0, -height % 4), mode="replicate")
        output: torch.Tensor = self.layers(padded)
        return output[..., :height, :width]


def build_generator(*, channels: int, seed: int) -> ResnetGenerator:
    """Build a generator, float32 on the CPU, in training mode, whose initial weights depend on `seed` alone."""
    with seeded_weights(seed):
        return ResnetGenerator(channels)


def _norm_relu(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(width), nn.ReLU(inplace=True)
