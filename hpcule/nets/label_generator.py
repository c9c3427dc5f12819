"""The generator of MTL-UE (ICML 2025, arXiv 2505.05279): an image and embeddings of its labels in, a delta out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.nets.seeded import seeded_weights
from hpcule.nets.unet import convolutions

WIDTHS = (32, 64)
"""Channels of an image's features at half, and at a quarter, of its resolution."""


class LabelGenerator(nn.Module):
    """Features of an image at a quarter of its resolution, the embeddings of its labels next to them, and a decoder.

    Its GroupNorm normalises each image by itself: the output for an image depends on no other, and there are no
    statistics to keep. Each label has two embeddings, one for each value; the mean of both stands for a value that is
    unknown.

    Args:
        channels: of the images and of the output.
        labels: their number.
        width: channels of an embedding.
        size: (H, W) of the images.
    """

    def __init__(self, channels: int, labels: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        quarter = (-(-size[0] // 4), -(-size[1] // 4))
        self.down1 = nn.Sequential(nn.MaxPool2d(2), convolutions(channels, fine))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), convolutions(fine, coarse))
        self.embeddings = nn.Parameter(torch.randn(2 * labels, width, *quarter))
        self.up2 = convolutions(coarse + labels * width, coarse)
        self.up1 = convolutions(coarse, fine)
        self.last = nn.Conv2d(fine, channels, 3, padding=1)

    def forward(self, images: Tensor, holds: Tensor) -> Tensor:
        """Map images to deltas in (-1, 1).

        Args:
            images: [b, C, H, W] in [0, 1]; sizes that are no multiple of 4 are computed on the next multiple.
            holds: how far each label holds, float [b, L]: 1, 0, or 1/2 where the label counts for nothing.

        Returns:
            Deltas [b, C, H, W].
        """
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % 4, 0, -height % 4), mode="replicate")
        features = self.down2(self.down1(padded))
        share, pairs = holds[:, :, None, None, None], self.pairs
        chosen = (1 - share) * pairs[:, 0] + share * pairs[:, 1]
        middle = self.up2(torch.cat([features, chosen.flatten(1, 2)], 1))
        fine = self.up1(functional.interpolate(middle, scale_factor=2.0))
        return torch.tanh(self.last(functional.interpolate(fine, scale_factor=2.0)))[..., :height, :width]

    @property
    def pairs(self) -> Tensor:
        """Both embeddings of each label [L, 2, width, h, w]."""
        return self.embeddings.view(-1, 2, *self.embeddings.shape[1:])

    def likeness(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """How far embeddings resemble each other: the mean over labels of 1 + the cosine of a label's two, and the mean
        over pairs of different labels of the absolute cosine of one embedding of each.

        Args:
            chosen: numbers of the labels, int64 [l].
        """
        directions = functional.normalize(self.pairs[chosen].flatten(2), dim=2)
        within = 1 + (directions[:, 0] * directions[:, 1]).sum(1).mean()
        flat = directions.flatten(0, 1)
        label = torch.arange(len(chosen), device=flat.device).repeat_interleave(2)
        others = label[:, None] != label
        return within, (flat @ flat.T)[others].abs().mean() if len(chosen) > 1 else within.new_zeros(())


def build_label_generator(
    *, channels: int, labels: int, width: int, size: tuple[int, int], seed: int
) -> LabelGenerator:
    """Build a generator, float32 on the CPU, whose initial weights depend on `seed` alone; see the class."""
    with seeded_weights(seed):
        return LabelGenerator(channels, labels, width, size)
