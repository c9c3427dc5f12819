"""A small network that learns in few passes: the quick judge of full-size training sets.

It has what the public speed records on CIFAR-10 have in common (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single
GPU", 2024, https://arxiv.org/abs/2404.00498): convolutions in pairs between poolings, GELU, convolutions that begin as
the identity, and a first layer that is fitted to the training set instead of learnt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (48, 96, 192)
"""Channels of the three stages, of which the last poolings leave 4 x 4 places or fewer."""
EDGE = 32
"""Pixels a side for which the first layer has stride 1; twice as many have stride 2."""
DIRECTIONS = 12
"""Largest number of patch directions in the first layer, each with both signs: all of a 2 x 2 patch in colour."""
SMALLEST_EIGENVALUE = 5e-4
"""What is added to the variance along each direction, in mean variances: directions without variance stay small."""
BATCH_NORM_MOMENTUM = 0.4
"""A run has few steps, and running statistics should be of the last ones."""
FEATURE_SCALE = 1 / 8
"""Factor of the pooled features, which makes first answers small and the last layer learn as slowly as the others."""


class Fast(nn.Module):
    """Whitened patches, three stages of two 3x3 convolutions with BatchNorm and GELU, maxima over places, linear layer.

    Until `whiten` has fitted the first layer it learns like the others. 656,458 parameters learn for 10 classes.
    """

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        stride = max(1, round(max(size) / EDGE))
        kernel = 2 * stride
        directions = min(DIRECTIONS, channels * kernel**2)
        # Images of less than half that size would be pooled away.
        self.first = nn.Conv2d(channels, 2 * directions, kernel, stride, padding=stride // 2)
        rounds_up = min(size) // stride < EDGE // 2
        self.stages = nn.Sequential()
        inputs = 2 * directions
        for width in WIDTHS:
            self.stages.append(_Stage(inputs, width, rounds_up))
            inputs = width
        self.linear = nn.Linear(inputs, classes)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Fit the first layer, which then stays as it is: patches' principal components, brought to equal variance.

        Args:
            images: float [n, C, H, W], some of the training set.
        """
        kernel, stride, count = self.first.kernel_size[0], self.first.stride[0], self.first.out_channels // 2
        patches = functional.unfold(images.double(), kernel, stride=stride).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        centred = patches - mean
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        variances, directions = variances.flip(0)[:count], directions.flip(1)[:, :count]
        # An eigenvector has no sign of its own: the largest value is positive.
        peaks = directions.abs().argmax(0, keepdim=True)
        directions = directions * directions.gather(0, peaks).sign()
        least = SMALLEST_EIGENVALUE * variances.clamp(min=0).mean() + torch.finfo(torch.float32).tiny
        filters = (directions / (variances.clamp(min=0) + least).sqrt()).T
        both = torch.cat([filters, -filters])
        self.first.weight.copy_(both.view_as(self.first.weight))
        assert self.first.bias is not None
        self.first.bias.copy_(-both @ mean)
        self.first.requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to what the linear layer sees [b, D]."""
        places = self.stages(functional.gelu(self.first(images)))
        return FEATURE_SCALE * functional.adaptive_max_pool2d(places, 1).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to logits [b, classes]."""
        logits: Tensor = self.linear(self.features(images))
        return logits


class _Stage(nn.Module):
    """Convolution, pooling by 2, convolution; each normalised and with GELU."""

    def __init__(self, inputs: int, outputs: int, rounds_up: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs)
        self.pool = nn.MaxPool2d(2, ceil_mode=rounds_up)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.gelu(self.norm1(self.pool(self.conv1(images))))
        result: Tensor = functional.gelu(self.norm2(self.conv2(hidden)))
        return result


def _convolution(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # The first outputs begin as copies of the inputs, as far as there are inputs.
    nn.init.dirac_(convolution.weight[: min(inputs, outputs)].data)
    return convolution, nn.BatchNorm2d(outputs, momentum=BATCH_NORM_MOMENTUM)
