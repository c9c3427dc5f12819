"""ResNets of basic blocks (He et al. 2016, https://arxiv.org/abs/1512.03385), in the form used for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

LARGEST_SMALL_IMAGE = 64
"""Pixels of the longer side up to which the stem keeps the resolution."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False)).append(nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [b, inputs, H, W] to [b, outputs, ceil(H / stride), ceil(W / stride)]."""
        hidden = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(images))


class ResNet(nn.Module):
    """Stem, stages of basic blocks (each but the first halves the resolution), global average pooling, linear layer.

    Args:
        channels: of the images.
        classes: the number of logits.
        widths: channels of each stage.
        blocks: basic blocks of each stage.
        small_images: a 3x3 stem at full resolution, else ImageNet's (7x7 with stride 2, then max-pooling).
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int], blocks: int, small_images: bool) -> None:
        super().__init__()
        self.stem = _stem(channels, widths[0], small_images)
        self.stages = nn.Sequential()
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(BasicBlock(inputs, width, stride))
                inputs = width
        self.linear = nn.Linear(inputs, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [b, C, H, W] to what the linear layer sees [b, D]."""
        return functional.adaptive_avg_pool2d(self.stages(self.stem(images)), 1).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [b, C, H, W] to logits [b, classes]."""
        logits: torch.Tensor = self.linear(self.features(images))
        return logits


def _stem(channels: int, width: int, small_images: bool) -> nn.Sequential:
    if small_images:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
    return nn.Sequential(
        nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def resnet18(channels: int, classes: int, size: tuple[int, int]) -> ResNet:
    """ResNet-18: 11,173,962 parameters for 3 channels, 10 classes and images of up to 64 pixels."""
    return ResNet(channels, classes, (64, 128, 256, 512), 2, max(size) <= LARGEST_SMALL_IMAGE)


def resnet18_imagenet(channels: int, classes: int, size: tuple[int, int]) -> ResNet:
    """ResNet-18 with ImageNet's stem on images of any size, as an attacker gets it unchanged from a library."""
    return ResNet(channels, classes, (64, 128, 256, 512), 2, small_images=False)


def resnet_small(channels: int, classes: int, size: tuple[int, int]) -> ResNet:
    """ResNet-10 of half the width: a victim that two processor cores train on ten thousand small images in minutes."""
    return ResNet(channels, classes, (32, 64, 128, 256), 1, max(size) <= LARGEST_SMALL_IMAGE)


def resnet_tiny(channels: int, classes: int, size: tuple[int, int]) -> ResNet:
    """ResNet-10 of a quarter of the width."""
    return ResNet(channels, classes, (16, 32, 64, 128), 1, max(size) <= LARGEST_SMALL_IMAGE)
