"""A five-layer convolutional network: the quick victim and surrogate for a processor without an accelerator."""

from __future__ import annotations

import torch
from torch import nn


class ConvNet(nn.Module):
    """Four 3x3 convolutions (32, 64, 128, 128) with BatchNorm and ReLU, max-pooling between them, and one linear layer.

    Global average pooling before the linear layer and pooling that rounds up make it fit any image size.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(channels, 32),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(32, 64),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(64, 128),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(128, 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.linear = nn.Linear(128, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [b, C, H, W] to logits [b, classes]."""
        logits: torch.Tensor = self.linear(self.features(images))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
