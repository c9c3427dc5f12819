"""Label-free tasks that ask for a number at every pixel: the colours of a grey image, and its edges."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.data.source import Ids, Source
from hpcule.tasks.task import Sums, Task, require_images, unmarked
from hpcule.world.group import World

_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""
_TOLERANCE = 0.1
"""Largest error of a value that counts as right, as a share of the range of levels."""


class PixelRegression(Task):
    """Numbers at every pixel that follow from the image itself; the measure is the share of variance explained."""

    measure = "R²"
    answers = "pixels"

    @abstractmethod
    def posed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is shown [b, C, H, W], and what is asked for [b, outputs, H, W]."""

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """See `Task.targets`."""
        return unmarked(ids)

    def chance(self, test: Source) -> float:
        """See `Task.chance`."""
        return 0.0

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Mean over the pixels of a sample of squared errors, in units of the tolerance."""
        return ((answers - targets) / _TOLERANCE).square().mean((1, 2, 3))

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        return ((answers - targets).abs() <= _TOLERANCE).float().mean((1, 2, 3))

    def tally(self) -> Sums:
        """See `Task.tally`."""
        return _Explained()

    def question(self, images: Tensor, targets: Tensor, purpose: int, ids: Ids) -> tuple[Tensor, Tensor]:
        """See `Task.question`."""
        return self.posed(images)

    def exam(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Task.exam`."""
        return self.posed(images)


class Colour(PixelRegression):
    """Give a grey image its colours: how far red and blue are from luminance."""

    name = "colour"
    title = "colourisation"

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        require_images(source, self.name)
        if source.shape[0] != 3:
            raise DataError(f"{source.name} has no colours to be guessed: choose another task")
        self.outputs = 2

    def posed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `PixelRegression.posed`."""
        light = _luminance(images)
        return light.expand_as(images).contiguous(), images[:, 0::2] - light


class Edges(PixelRegression):
    """Find edges: the length of the gradient of luminance, by Sobel's filters."""

    name = "edges"
    title = "edges"

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        require_images(source, self.name)
        self.outputs = 1

    def posed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `PixelRegression.posed`."""
        light = functional.pad(_luminance(images), (1, 1, 1, 1), mode="replicate")
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 4
        filters = torch.stack([across, across.T])[:, None]
        return images, functional.conv2d(light, filters).norm(dim=1, keepdim=True)


class _Explained(Sums):
    """Squared errors and the spread of what was asked for, in float64."""

    def count(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Sums.count`: number, sum and sum of squares of targets for each output, and squared errors."""
        values, errors = targets.double(), (answers.double() - targets.double()).square()
        number = torch.full((values.shape[1],), float(values.numel() // values.shape[1]), device=values.device)
        dims = (0, 2, 3)
        return torch.stack([number.double(), values.sum(dims), values.square().sum(dims), errors.sum(dims)])

    def measures(self, world: World) -> Mapping[str, float]:
        """See `Tally.measures`; less than nothing counts as nothing."""
        number, total, squares, errors = self.sums(world)
        spread = (squares - total.square() / number).sum()
        return {"R²": max(0.0, 1 - float(errors.sum() / spread)) if spread > 0 else 0.0}


def _luminance(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = torch.tensor(_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
