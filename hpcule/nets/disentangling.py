"""A variational autoencoder that separates images from what a perturbation adds to them by class.

D-VAE (Yu et al., ICML 2024, arXiv 2405.01460): little passes through the latent code, so that the image which is
decoded from it has no room for a perturbation; a second decoder, which knows the class as well, draws the perturbation.
This network is smaller than the authors': it computes at half the resolution throughout, or at a quarter of that of
large images, where theirs has the first five layers of ResNet-18.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from hpcule.nets.resnet import LARGEST_SMALL_IMAGE
from hpcule.nets.seeded import seeded_weights

WIDTH = 32
LATENT = 32
"""Channels of the latent code."""


class Disentangled(NamedTuple):
    """Images in two parts.

    Attributes:
        images: what was decoded from the code alone [b, C, H, W], in (0, 1).
        residues: what was decoded from the code and the class [b, C, H, W].
        divergences: the code's information in nats a place [b]: the Kullback-Leibler divergence from a normal code.
    """

    images: Tensor
    residues: Tensor
    divergences: Tensor


class DisentanglingAutoencoder(nn.Module):
    """An encoder and two decoders, shallow enough to do without normalisation.

    Args:
        shape: (C, H, W) of the images.
        classes: how many there are.

    Attributes:
        code_shape: (channels, rows, columns) of the latent code.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self._scale = 2 if max(height, width) <= LARGEST_SMALL_IMAGE else 4
        self.code_shape = LATENT, -(-height // self._scale), -(-width // self._scale)
        values = channels * self._scale**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(self._scale),
            nn.Conv2d(values, WIDTH, 3, padding=1),
            _Block(),
            nn.Conv2d(WIDTH, 2 * LATENT, 1),
        )
        self.classes = nn.Embedding(classes, LATENT * self.code_shape[1] * self.code_shape[2])
        self.image_decoder = _decoder(values, self._scale)
        self.residue_decoder = _decoder(values, self._scale)

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> Disentangled:
        """Take images [b, C, H, W] in [0, 1] apart.

        Args:
            images: of the shape that was given.
            labels: int64 [b].
            noise: standard normal [b, *code_shape]; zeros for the mean code.
        """
        height, width = images.shape[2:]
        padding = (0, -width % self._scale, 0, -height % self._scale)
        encoded = self.encoder(functional.pad(images, padding, mode="replicate")).float()
        mean, log_variance = encoded.chunk(2, dim=1)
        divergences = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean((1, 2))
        code = mean + (0.5 * log_variance).exp() * noise
        decoded = self.image_decoder(code).float().sigmoid()
        residues = self.residue_decoder(code + self.classes(labels).view_as(code)).float()
        return Disentangled(decoded[..., :height, :width], residues[..., :height, :width], divergences)


def build_disentangling(shape: tuple[int, int, int], classes: int, seed: int) -> DisentanglingAutoencoder:
    """Build such an autoencoder, float32 on the CPU, whose initial weights depend on `seed` alone."""
    with seeded_weights(seed):
        return DisentanglingAutoencoder(shape, classes)


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = values + self.second(functional.relu(self.first(functional.relu(values))))
        return result


def _decoder(values: int, scale: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(LATENT, WIDTH, 1), _Block(), nn.Conv2d(WIDTH, values, 3, padding=1), nn.PixelShuffle(scale)
    )
