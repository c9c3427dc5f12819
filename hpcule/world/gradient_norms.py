"""What is kept of a step's gradients to estimate their noise afterwards: norms alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

import torch
from torch import Tensor


class NormsDocument(TypedDict):
    """`GradientNorms` in JSON."""

    groups: int
    samples: int
    weighted_squares: float
    squared_norm: float


@dataclass(frozen=True)
class GradientNorms:
    """Of a step whose batch of n samples was cut into groups of b_i, with mean gradients g_i over a group, g over all.

    A group may be a single sample, a ghost, a part of a batch, or a worker's share.
    """

    groups: int
    samples: int
    """n, the sum of b_i."""
    weighted_squares: float
    """The sum of b_i |g_i|^2."""
    squared_norm: float
    """The squared norm |g|^2 of the whole batch's gradient."""

    @classmethod
    def of(cls, sizes: Sequence[int], squared_norms: Sequence[float], whole: float) -> Self:
        """Combine the sizes b_i and squared norms |g_i|^2 of the parts with |g|^2 of the whole."""
        weighted = sum(size * square for size, square in zip(sizes, squared_norms, strict=True))
        return cls(len(sizes), sum(sizes), weighted, whole)

    def document(self) -> NormsDocument:
        """The norms for JSON."""
        return {
            "groups": self.groups,
            "samples": self.samples,
            "weighted_squares": self.weighted_squares,
            "squared_norm": self.squared_norm,
        }


def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    """|g|^2 of a gradient in parts, summed in float64."""
    return torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in tensors]).square().sum()
