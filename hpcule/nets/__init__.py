"""Networks: surrogates and victims by name, the generator of UC, and the frozen encoders of its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets import library
from hpcule.nets.audio import AUDIO_NETS, audio_net
from hpcule.nets.convnet import ConvNet
from hpcule.nets.external import build_external, find_factory, is_external
from hpcule.nets.fast import Fast
from hpcule.nets.resnet import resnet18, resnet18_imagenet, resnet_small, resnet_tiny
from hpcule.nets.seeded import seeded_weights

NETS: dict[str, Callable[[int, int, tuple[int, int]], nn.Module]] = {
    "convnet": lambda channels, classes, size: ConvNet(channels, classes),
    "fast": Fast,
    "resnet-tiny": resnet_tiny,
    "resnet-small": resnet_small,
    "resnet18": resnet18,
    "resnet18-imagenet": resnet18_imagenet,
    "resnet50": library.resnet50,
    "senet18": library.senet18,
    "vgg16": library.vgg16,
    "densenet121": library.densenet121,
    "mobilenet-v2": library.mobilenet_v2,
    "vit": library.vit,
}
"""Networks for images: name -> constructor from (channels, classes, (H, W)). `AUDIO_NETS` are those for recordings."""


class Featured(Protocol):
    """What all of `NETS` are: a network that ends in one linear layer, named `linear`."""

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to what the linear layer sees [b, D]."""
        ...


def build(
    name: str, *, channels: int, classes: int, size: tuple[int, int], seed: int, rate: int | None = None
) -> nn.Module:
    """Build a classifier of images [b, channels, H, W] into logits [b, classes], float32 on the CPU, in training mode.

    Args:
        name: one of `NETS` for images, of `AUDIO_NETS` for recordings, or the name of an external network for images:
            see `hpcule.nets.external`.
        channels: of the images, 1 or 3 as a rule.
        classes: the number of logits.
        size: (H, W) of the images; above 64 pixels, and by name, stems are those made for ImageNet.
        seed: all that the initial weights depend on; the global random state is neither read nor changed.
        rate: samples a second of recordings [b, 1, 1, T]; None for images.

    Raises:
        UsageError: no network has this name, it is for the other kind of samples, or an external one cannot be
            imported, cannot be built, or does not return logits.
    """
    check_network(name)
    valid, noun = (AUDIO_NETS, "recordings") if rate is not None else ((*NETS, *_external(name)), "images")
    if name not in valid:
        raise UsageError(f"network {name} is not for {noun}; valid for them are {', '.join(valid)}")
    with seeded_weights(seed):
        if name not in (*NETS, *AUDIO_NETS):
            return build_external(name, channels, classes, size)
        if rate is not None:
            return audio_net(name, classes, rate)
        return NETS[name](channels, classes, size)


def check_network(name: str) -> None:
    """Check that a network can be found under a name; an external one is imported for it.

    Raises:
        UsageError: nothing has this name, or it cannot be imported.
    """
    if name in (*NETS, *AUDIO_NETS):
        return
    if not is_external(name):
        forms = ("my_package.nets:build", "timm:NAME", "torchvision:NAME")
        raise UsageError(unknown("network", name, (*NETS, *AUDIO_NETS, *forms)))
    find_factory(name)


def _external(name: str) -> tuple[str, ...]:
    return (name,) if is_external(name) else ()
