"""Networks that are not ours: by dotted name, by entry point, and by name from timm and torchvision.

`my_package.nets:build` names a factory; the entry point group `hpcule.networks` gives factories short names. A factory
is called with (channels, classes, (height, width)) as those of `hpcule.nets.NETS` are, and returns a network that maps
images float32 [b, channels, height, width] in [0, 1] to logits [b, classes].
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcule.config.errors import UsageError, first_line
from hpcule.config.tree import unknown
from hpcule.world.torchvision_compat import declare_missing_operators, torchvision

Factory = Callable[[int, int, tuple[int, int]], nn.Module]
"""A function from channels, classes and (height, width) to a network."""

GROUP = "hpcule.networks"
"""The entry point group of factories."""


STOCHASTIC_DEPTH = ("DropPath", "StochasticDepth")
"""Classes of timm and torchvision."""


class Headed(nn.Module):
    """A classifier of any make, with the parts that some methods and recipes need of one.

    Layers of dropout and of stochastic depth stay in evaluation mode. They would draw from the global random state, and
    a result depends on its seed alone, whatever the number of workers.

    Attributes:
        network: the classifier itself.
    """

    def __init__(self, network: nn.Module, classes: int, name: str) -> None:
        super().__init__()
        self.network = network
        self._name = name
        heads = [part for part, layer in network.named_modules() if _ends(layer, classes)]
        self._head = heads[-1] if heads else None
        self.train()

    def train(self, mode: bool = True) -> Headed:
        """Switch between training and evaluation mode, but for the layers that draw random numbers."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd) or type(layer).__name__ in STOCHASTIC_DEPTH:
                layer.train(False)
        return self

    @property
    def linear(self) -> nn.Linear:
        """The last linear layer, the one that gives the logits.

        Raises:
            UsageError: the network ends in another kind of layer.
        """
        if self._head is None:
            raise UsageError(
                f"network {self._name} does not end in a linear layer (torch.nn.Linear), which this method or recipe "
                "needs: give it one, or choose another network"
            )
        layer = self.network.get_submodule(self._head)
        assert isinstance(layer, nn.Linear)
        return layer

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to the input [b, D] of the last linear layer."""
        seen: list[Tensor] = []
        hook = self.linear.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
        try:
            self.network(images)
        finally:
            hook.remove()
        return seen[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Map images [b, C, H, W] to logits [b, classes]."""
        logits: Tensor = self.network(images)
        return logits


def is_external(name: str) -> bool:
    """Whether a name has the form of an external network: it has a colon, or an entry point has it."""
    return ":" in name or name in _entry_points()


def find_factory(name: str) -> Factory:
    """The factory of an external network; for timm and torchvision one that builds their network `NAME`.

    Raises:
        UsageError: nothing can be imported under this name.
    """
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    if name.startswith("torchvision:"):
        return _torchvision(name.removeprefix("torchvision:"))
    if ":" in name:
        return _dotted(name)
    point = _entry_points()[name]
    with _import_errors(name):
        found: Factory = point.load()
    return found


def build_external(name: str, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
    """Build an external network and check what it makes of images [2, channels, H, W].

    Raises:
        UsageError: it cannot be imported or built, is no `torch.nn.Module`, or does not return logits [2, classes].
    """
    factory = find_factory(name)
    try:
        network: object = factory(channels, classes, size)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"network {name} cannot be built for {channels} channel(s), {classes} classes and images of "
            f"{size[0]}x{size[1]} ({type(error).__name__}: {first_line(error)}): {_SIGNATURE}"
        ) from None
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {name}: the factory returned {type(network).__name__}: {_SIGNATURE}")
    _check_output(network, name, channels, classes, size)
    return Headed(network, classes, name)


_SIGNATURE = "a factory takes (channels, classes, (height, width)) and returns a torch.nn.Module"


def _check_output(network: nn.Module, name: str, channels: int, classes: int, size: tuple[int, int]) -> None:
    """Run a copy, in training and in evaluation mode: BatchNorm statistics of the network itself stay as they are."""
    images = torch.zeros(2, channels, *size)
    for training in (True, False):
        try:
            with torch.no_grad():
                logits: object = copy.deepcopy(network).train(training)(images)
        except Exception as error:
            raise UsageError(
                f"network {name} does not take images of {channels} channel(s) and {size[0]}x{size[1]} pixels "
                f"({type(error).__name__}: {first_line(error)}): choose another network, or another image_size"
            ) from None
        seen = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if not isinstance(logits, Tensor) or logits.shape != (2, classes) or not logits.is_floating_point():
            raise UsageError(f"network {name} returned {seen} for 2 images; valid are float logits [2, {classes}]")


def _dotted(name: str) -> Factory:
    module_name, _, attributes = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attributes.split("."))):
        raise UsageError(f"network {name}: valid are my_package.nets:build, timm:NAME and torchvision:NAME")
    with _import_errors(name), _current_directory():
        found: Any = importlib.import_module(module_name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise UsageError(f"network {name}: {unknown('name', attribute, public)}")
        found = getattr(found, attribute)
    if not callable(found):
        raise UsageError(f"network {name} is {type(found).__name__}: {_SIGNATURE}")
    factory: Factory = found
    return factory


@contextmanager
def _import_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"network {name} cannot be imported ({error}): start in the folder of its module, add the folder to "
            "PYTHONPATH, or install the package"
        ) from None
    except Exception as error:
        raise UsageError(f"network {name} cannot be imported ({type(error).__name__}: {first_line(error)})") from None


@contextmanager
def _current_directory() -> Iterator[None]:
    """Modules are found in the current directory too, where the console script of a package does not find them."""
    before = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        # Removing the entry would remove one of the same name that was there before.
        sys.path[:] = before


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _timm(name: str) -> Factory:
    declare_missing_operators()
    try:
        import timm
    except ImportError:
        raise UsageError(f"network timm:{name} needs timm: pip install timm") from None
    if not timm.is_model(name):
        near = timm.list_models(f"{name[:4]}*") or timm.list_models("resnet*")
        raise UsageError(unknown("network of timm", name, near[:100]))

    def build(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        try:
            network = timm.create_model(name, in_chans=channels, num_classes=classes, img_size=size)
        except TypeError:  # img_size is for those whose weights depend on it
            network = timm.create_model(name, in_chans=channels, num_classes=classes)
        assert isinstance(network, nn.Module)
        return network

    return build


def _torchvision(name: str) -> Factory:
    models = torchvision().models
    if name not in (known := models.list_models(module=models)):
        raise UsageError(unknown("network of torchvision", name, known))

    def build(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        settings = {"image_size": size[0]} if name.startswith("vit_") else {}
        # Two old networks have heads for training that return more than logits.
        if name in ("googlenet", "inception_v3"):
            settings["aux_logits"] = False
        network = models.get_model(name, weights=None, num_classes=classes, **settings)
        assert isinstance(network, nn.Module)
        _set_channels(network, channels)
        return network

    return build


def _set_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels; torchvision builds all networks for 3."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels == channels:
        return
    place, _, attribute = name.rpartition(".")
    stem = nn.Conv2d(
        channels,
        first.out_channels,
        kernel_size=_pair(first.kernel_size),
        stride=_pair(first.stride),
        padding=first.padding if isinstance(first.padding, str) else _pair(first.padding),
        bias=first.bias is not None,
    )
    setattr(network.get_submodule(place), attribute, stem)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def _ends(layer: nn.Module, classes: int) -> bool:
    return isinstance(layer, nn.Linear) and layer.out_features == classes
