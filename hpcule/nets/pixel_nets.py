"""Networks that answer for every pixel of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets.seeded import seeded_weights
from hpcule.nets.unet import convolutions

WIDTHS: dict[str, tuple[int, ...]] = {"unet": (32, 64, 128, 256), "unet-small": (16, 32, 64)}
"""Channels at every resolution, each half of the one before."""


class PixelUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with GroupNorm, of any depth.

    Args:
        channels: of the images.
        outputs: numbers at every pixel.
        widths: channels at every resolution, the finest first.
    """

    def __init__(self, channels: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(convolutions, (channels, *widths[:-1]), widths))
        inputs = [coarse + fine for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)]
        self.up = nn.ModuleList(map(convolutions, inputs, widths[-2::-1]))
        self.linear = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to [b, outputs, H, W].

        Sizes that cannot be halved often enough are computed on the next ones that can, the last row and column
        repeated, and cropped.
        """
        height, width = images.shape[-2:]
        multiple = 2 ** (len(self.down) - 1)
        features = functional.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        finer: list[Tensor] = []
        for number, block in enumerate(self.down):
            features = block(features if number == 0 else functional.max_pool2d(features, 2))
            finer.append(features)
        for block, fine in zip(self.up, finer[-2::-1], strict=True):
            features = block(torch.cat([functional.interpolate(features, scale_factor=2.0), fine], dim=1))
        answers: Tensor = self.linear(features)
        return answers[..., :height, :width]


def build_pixel_network(name: str, *, channels: int, outputs: int, seed: int) -> PixelUNet:
    """Build a network, float32 on the CPU, in training mode, whose initial weights depend on `seed` alone."""
    with seeded_weights(seed):
        return PixelUNet(channels, outputs, WIDTHS[name])


def check_pixel_network(name: str) -> None:
    """Check that a network has this name.

    Raises:
        UsageError: none has.
    """
    if name not in WIDTHS:
        raise UsageError(unknown("network", name, WIDTHS))
