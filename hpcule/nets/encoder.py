"""Frozen image encoders with published weights: their features are what UC clusters and moves between the centres."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.nets.pretrained import Architecture, architecture_of
from hpcule.nets.seeded import seeded_weights


class Encoder(nn.Module):
    """A frozen network that gives features; always in evaluation mode, its parameters need no gradient.

    Args:
        name: as given to `load_encoder`.
        network: with the weights loaded; the last layer of a classifier is cut off here.
        architecture: of the network.
        input_size: pixels of the square that images are resized to.

    Attributes:
        name: as given.
        input_size: as given.
        dimension: D, the number of features.
        weights_sha256: of all loaded tensors in the order of their names.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, name: str, network: nn.Module, architecture: Architecture, input_size: int) -> None:
        super().__init__()
        self.name = name
        self.input_size = input_size
        self.weights_sha256 = _sha256(network)
        last_layer = network.get_submodule(architecture.last_layer)
        assert isinstance(last_layer, nn.Linear)
        self.dimension = last_layer.out_features if architecture.keeps_last_layer else last_layer.in_features
        if not architecture.keeps_last_layer:
            setattr(network, architecture.last_layer, nn.Identity())
        self.network = network
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(architecture.std).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """Stay in evaluation mode: batch statistics of perturbed images must never enter the features."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [b, 1 or 3, H, W] in [0, 1] to features [b, D], differentiably; grey becomes three equal channels.

        Raises:
            DataError: the images have another number of channels.
        """
        if images.shape[1] not in (1, 3):
            raise DataError(f"the encoder {self.name} takes images of 1 or 3 channels, not {images.shape[1]}")
        size = (self.input_size, self.input_size)
        resized = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        features: torch.Tensor = self.network((resized.expand(-1, 3, -1, -1) - self.mean) / self.std)
        return features


def load_encoder(name: str, checkpoint: Path | None = None, *, input_size: int | None = None) -> Encoder:
    """Load an encoder on the CPU.

    Args:
        name: a key of `ARCHITECTURES`, or `timm:NAME`.
        checkpoint: a state dict to load instead of the published weights; every key must match.
        input_size: pixels of the square that images are resized to; None: those for which the published weights were
            trained.

    Raises:
        UsageError: no encoder has this name, or it needs a package that is not installed.
        DataError: the weights are absent, unreadable, not finite, or not those of this network.
    """
    architecture = architecture_of(name)
    size = input_size or architecture.input_size
    with seeded_weights(0):
        network = architecture.build(size)
    if checkpoint is None:
        weights, where = architecture.published_weights(), f"published weights of {name}"
    else:
        weights, where = load_weights(checkpoint), str(checkpoint)
    _load_strictly(network, architecture.renamed(weights, network), where, name)
    return Encoder(name, network, architecture, size)


def load_weights(checkpoint: Path) -> Mapping[str, torch.Tensor]:
    """A state dict from a file.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    weights = _read(checkpoint)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise DataError(f"{checkpoint}: not a state dict; save one with torch.save(network.state_dict(), FILE)")
    return weights


def _read(checkpoint: Path) -> object:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{checkpoint}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # foreign bytes come out of torch.load as whatever its parsers raise
        raise DataError(
            f"{checkpoint}: not a checkpoint of plain tensors ({type(error).__name__}); "
            "save one with torch.save(network.state_dict(), FILE)"
        ) from None


def _load_strictly(network: nn.Module, weights: Mapping[str, torch.Tensor], where: str, name: str) -> None:
    """Load every tensor or raise.

    A state dict filtered by the keys of a wrapped network loads nothing and raises nothing, and the features of
    random weights look like any others.
    """
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise DataError(f"{where}: not the weights of {name}: {str(error).splitlines()[-1].strip()}") from None
    if missing or unexpected:
        raise DataError(f"{where}: not the weights of {name}: {_mismatch(missing, unexpected)}")
    for key, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"{where}: '{key}' holds NaN or infinite values; take an undamaged file")


def _mismatch(missing: list[str], unexpected: list[str]) -> str:
    """Which keys do not match, and the prefix to strip where one explains it."""
    text = f"{len(missing)} keys are missing{_examples(missing)}, {len(unexpected)} are unknown{_examples(unexpected)}"
    wrapped = [key for key in unexpected if missing and key.endswith(f".{missing[0]}")]
    return f"{text}; strip the prefix '{wrapped[0].removesuffix(missing[0])}'" if wrapped else text


def _examples(keys: list[str]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""


def _sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
