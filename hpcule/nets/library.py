"""torchvision's networks with stems for small images, as benchmarks of unlearnable data train them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from hpcule.nets.resnet import LARGEST_SMALL_IMAGE, BasicBlock, ResNet, resnet18
from hpcule.world.torchvision_compat import torchvision

SQUEEZE = 16
"""Channels of a squeeze-and-excitation block to one inside it."""


class Library(nn.Module):
    """A network without its last layer, and a linear layer on its features."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.linear = nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to what the linear layer sees [b, D]."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to logits [b, classes]."""
        logits: Tensor = self.linear(self.features(images))
        return logits


def resnet50(channels: int, classes: int, size: tuple[int, int]) -> Library:
    """ResNet-50 (arXiv 1512.03385): 23,520,842 parameters for 3 channels, 10 classes and images of up to 64 pixels."""
    network = torchvision().models.resnet50()
    if _small(size):
        network.maxpool = nn.Identity()
    network.conv1 = _stem(channels, 64, size)
    network.fc = nn.Identity()
    return Library(network, 2048, classes)


def senet18(channels: int, classes: int, size: tuple[int, int]) -> ResNet:
    """ResNet-18 with squeeze and excitation (arXiv 1709.01507) on each block's branch."""
    network, excitation = resnet18(channels, classes, size), torchvision().ops.SqueezeExcitation
    for block in network.stages:
        assert isinstance(block, BasicBlock)
        width = block.norm2.num_features
        block.norm2 = nn.Sequential(block.norm2, excitation(width, width // SQUEEZE))  # type: ignore[assignment]
    return network


def vgg16(channels: int, classes: int, size: tuple[int, int]) -> Library:
    """VGG-16 (arXiv 1409.1556) with BatchNorm, and one linear layer on global averages instead of three."""
    vgg = torchvision().models.vgg
    # Without the three linear layers, whose 123 million weights would be drawn for nothing.
    network = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    network[0] = nn.Conv2d(channels, 64, 3, padding=1)
    for layer in network:
        if isinstance(layer, nn.MaxPool2d):
            # Images of less than 32 pixels would be pooled away.
            layer.ceil_mode = True
    return Library(nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512, classes)


def densenet121(channels: int, classes: int, size: tuple[int, int]) -> Library:
    """DenseNet-121 (arXiv 1608.06993)."""
    network = torchvision().models.densenet121()
    if _small(size):
        network.features.pool0 = nn.Identity()
    network.features.conv0 = _stem(channels, 64, size)
    network.classifier = nn.Identity()
    return Library(network, 1024, classes)


def mobilenet_v2(channels: int, classes: int, size: tuple[int, int]) -> Library:
    """MobileNetV2 (arXiv 1801.04381), without dropout; on small images the first two strides are 1."""
    small = _small(size)
    settings = [[1, 16, 1, 1], [6, 24, 2, 1 if small else 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1]]
    network = torchvision().models.mobilenet_v2(inverted_residual_setting=[*settings, [6, 160, 3, 2], [6, 320, 1, 1]])
    network.features[0][0] = nn.Conv2d(channels, 32, 3, stride=1 if small else 2, padding=1, bias=False)
    network.classifier = nn.Identity()
    return Library(network, 1280, classes)


def vit(channels: int, classes: int, size: tuple[int, int]) -> Library:
    """A small vision transformer (arXiv 2010.11929): 7 layers of 384 units in 12 heads, on 64 patches or 196.

    Images of up to 64 pixels are brought to 32 by 32 with patches of 4, larger ones to 224 by 224 with patches of 16.
    It wants Adam and a learning rate of 0.0005 or so.
    """
    edge, patch = (32, 4) if _small(size) else (224, 16)
    network = torchvision().models.VisionTransformer(
        image_size=edge, patch_size=patch, num_layers=7, num_heads=12, hidden_dim=384, mlp_dim=384
    )
    network.conv_proj = nn.Conv2d(channels, 384, patch, stride=patch)
    network.heads = nn.Identity()
    return Library(nn.Sequential(_Resized(edge), network), 384, classes)


class _Resized(nn.Module):
    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] == (self.edge, self.edge):
            return images
        return functional.interpolate(images, (self.edge, self.edge), mode="bilinear", antialias=True)


def _small(size: tuple[int, int]) -> bool:
    return max(size) <= LARGEST_SMALL_IMAGE


def _stem(channels: int, width: int, size: tuple[int, int]) -> nn.Conv2d:
    kernel, stride = (3, 1) if _small(size) else (7, 2)
    return nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
