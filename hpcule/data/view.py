"""The augmentations that a network may look through, by name."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from hpcule.data.augment import CropFlip
from hpcule.data.source import Ids
from hpcule.data.strong import Strong

Augment = Literal["none", "crop-flip", "strong"]


class View(Protocol):
    """One draw for each sample of a batch."""

    def apply(self, images: Tensor) -> Tensor:
        """Images [b, C, H, W] in [0, 1], augmented; differentiable."""
        ...


def draw_view(augment: Augment, strength: float, purpose: int, ids: Ids, size: tuple[int, int]) -> View | None:
    """Draw for these ids and images [height, width]; None where nothing is to be done.

    Args:
        augment: crop-flip pads by an eighth of the height; strong is SimCLR's.
        strength: of the strong one; at 0 it does nothing at all, and not even flip.
        purpose: the key; the same (purpose, id) always gives the same draw.
        ids: of the samples.
        size: of the images.
    """
    if augment == "none" or (augment == "strong" and strength == 0):
        return None
    if augment == "crop-flip":
        return CropFlip.draw(purpose, ids, max(1, size[0] // 8))
    return Strong.draw(purpose, ids, size, strength)
