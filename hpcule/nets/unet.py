"""A small U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) that makes a delta out of each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.nets.seeded import seeded_weights

WIDTHS = (32, 64, 128)
GROUPS = 8


class UNet(nn.Module):
    """Two halvings of the resolution and back, with the finer features joined on the way, and tanh.

    Its GroupNorm normalises each image by itself. The output for an image therefore depends on that image alone, in
    training and in evaluation, and there are no statistics to keep.

    Args:
        channels: of the images and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.down1 = convolutions(channels, fine)
        self.down2 = convolutions(fine, middle)
        self.bottom = convolutions(middle, coarse)
        self.up2 = convolutions(coarse + middle, middle)
        self.up1 = convolutions(middle + fine, fine)
        self.last = nn.Conv2d(fine, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to [b, C, H, W] in (-1, 1).

        Sizes that are no multiple of 4 are computed on the next multiple, the last row and column repeated, and
        cropped.
        """
        height, width = images.shape[-2:]
        fine = self.down1(functional.pad(images, (0, -width % 4, 0, -height % 4), mode="replicate"))
        middle = self.down2(functional.max_pool2d(fine, 2))
        coarse = self.bottom(functional.max_pool2d(middle, 2))
        middle = self.up2(torch.cat([functional.interpolate(coarse, scale_factor=2.0), middle], dim=1))
        fine = self.up1(torch.cat([functional.interpolate(middle, scale_factor=2.0), fine], dim=1))
        return torch.tanh(self.last(fine))[..., :height, :width]


def build_unet(*, channels: int, seed: int) -> UNet:
    """Build a U-Net, float32 on the CPU, whose initial weights depend on `seed` alone."""
    with seeded_weights(seed):
        return UNet(channels)


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each normalised and rectified, that keep the resolution."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.ReLU(inplace=True)),
        *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.ReLU(inplace=True)),
    )
