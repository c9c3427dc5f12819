"""By how many quarter turns an image is rotated (Gidaris and others 2018, https://arxiv.org/abs/1803.07728)."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcule.data.source import Ids, Source
from hpcule.tasks.label import Naming
from hpcule.tasks.task import require_images, unmarked
from hpcule.world.keyed import uniform

TURNS = 4


class Rotation(Naming):
    """Say which way is up: a task that needs no label.

    Images that are higher than wide, or wider than high, are asked about at the square in their middle, since their
    shape would tell.
    """

    name = "rotation"
    title = "rotation"

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        require_images(source, self.name)
        self.outputs = TURNS

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """See `Task.targets`."""
        return unmarked(ids)

    def chance(self, test: Source) -> float:
        """See `Task.chance`."""
        return 1 / TURNS

    def question(self, images: Tensor, targets: Tensor, purpose: int, ids: Ids) -> tuple[Tensor, Tensor]:
        """Each image by quarter turns that are drawn for it."""
        turns = (torch.from_numpy(uniform(purpose, ids, 1)[:, 0].copy()) * TURNS).long().to(images.device)
        every = torch.stack(_every_turn(images))
        return every[turns, torch.arange(len(images), device=images.device)], turns

    def exam(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each image in all four ways."""
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
        return torch.cat(_every_turn(images)), turns


def _every_turn(images: Tensor) -> list[Tensor]:
    height, width = images.shape[2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = images[:, :, top : top + edge, left : left + edge]
    return [square.rot90(turns, (2, 3)) for turns in range(TURNS)]
