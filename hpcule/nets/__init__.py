"""Networks: surrogates and victims by name, the generator of UC, and the frozen encoders of its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets.convnet import ConvNet
from hpcule.nets.resnet import resnet18, resnet_small, resnet_tiny
from hpcule.nets.seeded import seeded_weights

NETS: dict[str, Callable[[int, int, tuple[int, int]], nn.Module]] = {
    "convnet": lambda channels, classes, size: ConvNet(channels, classes),
    "resnet-tiny": resnet_tiny,
    "resnet-small": resnet_small,
    "resnet18": resnet18,
}
"""Name -> constructor from (channels, classes, (H, W))."""


class Featured(Protocol):
    """What all of `NETS` are: a network that ends in one linear layer, named `linear`."""

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to what the linear layer sees [b, D]."""
        ...


def build(name: str, *, channels: int, classes: int, size: tuple[int, int], seed: int) -> nn.Module:
    """Build a classifier of images [b, channels, H, W] into logits [b, classes], float32 on the CPU, in training mode.

    Args:
        name: a key of `NETS`.
        channels: of the images, 1 or 3 as a rule.
        classes: the number of logits.
        size: (H, W) of the images; above 64 pixels the ResNets take the stem made for ImageNet.
        seed: all that the initial weights depend on; the global random state is neither read nor changed.

    Raises:
        UsageError: no network has this name.
    """
    if name not in NETS:
        raise UsageError(unknown("network", name, NETS))
    with seeded_weights(seed):
        return NETS[name](channels, classes, size)
