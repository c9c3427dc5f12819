"""LPIPS: how far two images are from each other for a network that knows photographs.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, arXiv 1801.03924,
version 0.1 on AlexNet. The authors' package brings the weights of its linear layers; AlexNet's are a file of
torchvision's.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcule.config.errors import DataError, UsageError
from hpcule.nets.encoder import load_weights
from hpcule.nets.seeded import seeded_weights
from hpcule.world.torchvision_compat import declare_missing_operators

SMALLEST = 31
"""Pixels that AlexNet's strides leave something of."""


class Perceptual:
    """LPIPS with AlexNet.

    Args:
        checkpoint: a state dict of torchvision's AlexNet.
        device: where to compute.

    Raises:
        UsageError: the package is not installed.
        DataError: the weights are absent, or not AlexNet's.
    """

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        declare_missing_operators()
        try:
            lpips: Any = importlib.import_module("lpips")
        except ImportError:
            raise UsageError('LPIPS needs a package that is not installed: pip install "hpcule[lpips]"') from None
        with seeded_weights(0), warnings.catch_warnings():
            # The package calls torchvision in the way of its older versions.
            warnings.simplefilter("ignore")
            self._network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        weights = load_weights(checkpoint)
        convolutions = {name.partition(".")[2]: parameter for name, parameter in self._network.net.named_parameters()}
        for name, parameter in convolutions.items():
            found = weights.get(f"features.{name}")
            if found is None or found.shape != parameter.shape:
                raise DataError(f"{checkpoint}: not the weights of torchvision's alexnet: features.{name}")
            parameter.data.copy_(found)
        self._network.to(device).eval().requires_grad_(False)
        self._device = device

    def distances(self, clean: Tensor, published: Tensor) -> Tensor:
        """LPIPS [n], 0 where two images are identical.

        Args:
            clean: float32 [n, 1 or 3, H, W] in [0, 1], at least 31 pixels high and wide.
            published: of the same shape.

        Raises:
            UsageError: the images are too small, or have other channels.
        """
        _, channels, height, width = clean.shape
        if channels not in (1, 3) or min(height, width) < SMALLEST:
            raise UsageError(
                f"LPIPS is for images of 1 or 3 channels and {SMALLEST} pixels or more; here {list(clean.shape[1:])}"
            )
        pair = (images.to(self._device).expand(-1, 3, -1, -1) * 2 - 1 for images in (clean, published))
        with torch.no_grad():
            distances: Tensor = self._network(*pair).flatten()
        return distances.cpu()
