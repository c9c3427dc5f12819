"""Low-rank adapters: a trained network stays as it is, and small matrices that are added to its weights learn.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

SCALE = 2.0
"""Factor of what is added; alpha / r in the paper, for which twice the rank is a common alpha."""


class LowRankChange(nn.Module):
    """The sum of a weight and a product of two thin matrices, which is 0 at first.

    Args:
        weight: [outputs, ...]; what follows the first dimension is taken as one.
        rank: of the product.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        inputs = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight, in the same shape."""
        return weight + SCALE * (self.up @ self.down).view_as(weight)


def add_low_rank(network: nn.Module, rank: int) -> None:
    """Freeze a network in place, and let a change of this rank learn in each linear layer and each convolution.

    Left as they are: normalisation, convolutions by groups of channels, and weights that have no rank above `rank`.
    """
    network.requires_grad_(False)
    for layer in list(network.modules()):
        grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if isinstance(layer, nn.Linear | nn.Conv2d) and not grouped and min(layer.weight.flatten(1).shape) > rank:
            register_parametrization(layer, "weight", LowRankChange(layer.weight, rank))
