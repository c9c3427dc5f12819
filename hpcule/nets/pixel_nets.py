"""Networks that answer for every pixel of an image, or every voxel of a volume."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets.seeded import seeded_weights
from hpcule.nets.unet import GROUPS, convolutions

WIDTHS: dict[str, tuple[int, ...]] = {"unet": (32, 64, 128, 256), "unet-small": (16, 32, 64)}
"""Channels at every resolution, each half of the one before."""


class PixelUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with GroupNorm, of any number of levels; for
    volumes with convolutions in three dimensions (Cicek et al. 2016, https://arxiv.org/abs/1606.06650).

    Args:
        channels: of the images.
        outputs: numbers at every pixel.
        widths: channels at every resolution, the finest first.
        depth: slices of volumes; None for images.
    """

    def __init__(self, channels: int, outputs: int, widths: tuple[int, ...], depth: int | None = None) -> None:
        super().__init__()
        self._depth = depth
        block = convolutions if depth is None else volume_convolutions
        self.down = nn.ModuleList(map(block, (channels, *widths[:-1]), widths))
        inputs = [coarse + fine for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)]
        self.up = nn.ModuleList(map(block, inputs, widths[-2::-1]))
        self.linear = (nn.Conv2d if depth is None else nn.Conv3d)(widths[0], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to [b, outputs, H, W]; those of volumes hold slices one below the other.

        Sizes that cannot be halved often enough are computed on the next ones that can, the last row and column, and
        the last slice, repeated, and cropped.
        """
        if self._depth is None:
            return self._answers(images)
        count, channels, _, width = images.shape
        volumes = images.reshape(count, channels, self._depth, -1, width)
        return self._answers(volumes).flatten(2, 3)

    def _answers(self, images: Tensor) -> Tensor:
        sizes = images.shape[2:]
        multiple = 2 ** (len(self.down) - 1)
        missing = [end for size in reversed(sizes) for end in (0, -size % multiple)]
        pool = functional.max_pool2d if self._depth is None else functional.max_pool3d
        features = functional.pad(images, missing, mode="replicate")
        finer: list[Tensor] = []
        for number, block in enumerate(self.down):
            features = block(features if number == 0 else pool(features, 2))
            finer.append(features)
        for block, fine in zip(self.up, finer[-2::-1], strict=True):
            features = block(torch.cat([functional.interpolate(features, scale_factor=2.0), fine], dim=1))
        answers: Tensor = self.linear(features)
        for axis, size in enumerate(sizes, 2):
            answers = answers.narrow(axis, 0, size)
        return answers


def build_pixel_network(name: str, *, channels: int, outputs: int, seed: int, depth: int | None = None) -> PixelUNet:
    """Build a network, float32 on the CPU, in training mode, whose initial weights depend on `seed` alone.

    Args:
        name: one of `WIDTHS`.
        channels: of the images.
        outputs: numbers at every pixel.
        seed: see above.
        depth: slices of volumes; None for images.
    """
    with seeded_weights(seed):
        return PixelUNet(channels, outputs, WIDTHS[name], depth)


def volume_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of volumes, each normalised and rectified, that keep the resolution."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv3d(channels, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def check_pixel_network(name: str) -> None:
    """Check that a network has this name.

    Raises:
        UsageError: none has.
    """
    if name not in WIDTHS:
        raise UsageError(unknown("network", name, WIDTHS))
