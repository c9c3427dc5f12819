"""SimCLR's augmentation, batched and differentiable, with draws that are keyed by sample id.

A random resized crop and a flip, colour jitter in random order, and grayscale, as torchvision does them for the same
parameters. Of strength s: the crop's area is uniform in [max(1 - 0.9 s, 0.05), 1]; jitter comes with probability
min(0.99, 0.8 s) and factors within 0.4 s of 1, hue within 0.1 s; grayscale with probability 0.2 s (Wang, Zhu, Gao;
NeurIPS 2024, arXiv 2402.04010, whose code takes these from Chen et al., arXiv 2002.05709).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcule.data.source import Ids
from hpcule.world.keyed import bits, uniform

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value, the same as torchvision's."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ATTEMPTS = 10
"""Boxes drawn until one fits; then the whole image."""


@dataclass(frozen=True)
class Strong:
    """One draw for each sample of a batch.

    Attributes:
        box: int64 [b, 4]: top, left, height and width of the crop.
        flip: bool [b].
        jitter: bool [b].
        order: int64 [b, 4], the operations by number in the order in which they are applied.
        factors: float32 [b, 4], by number of the operation; hue is added, in turns of the colour wheel.
        gray: bool [b].
    """

    box: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    factors: Tensor
    gray: Tensor

    @classmethod
    def draw(
        cls, purpose: int, ids: Ids, size: tuple[int, int], strength: float, smallest_crop: float | None = None
    ) -> Strong:
        """Draw for these ids and images [height, width]; the same (purpose, id) always gives the same.

        `smallest_crop` is a share of the image's area; None: what the strength says.
        """
        area = max(1 - 0.9 * strength, 0.05) if smallest_crop is None else smallest_crop
        values = uniform(purpose, ids, 8 + 3 * ATTEMPTS)
        spread = np.array([0.4, 0.4, 0.4, 0.1]) * strength
        factors = (2 * values[:, 4:8] - 1) * spread + np.array([1, 1, 1, 0])
        # The order of four random words is a random permutation.
        order = np.argsort(bits(purpose ^ 1, ids, 4), axis=1)
        return cls(
            torch.from_numpy(_boxes(values[:, 8:].reshape(-1, ATTEMPTS, 3), size, area)),
            torch.from_numpy(values[:, 0] < 0.5),
            torch.from_numpy(values[:, 1] < min(0.99, 0.8 * strength)),
            torch.from_numpy(order),
            torch.from_numpy(factors.astype(np.float32)),
            torch.from_numpy(values[:, 2] < 0.2 * strength),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Augment images [b, C, H, W] in [0, 1], C = 3 or 1; a single channel has brightness and contrast only."""
        rows, columns = self._interpolation(images)
        result = rows @ images @ columns
        colour = images.shape[1] == 3
        for place in range(4):
            for operation in range(4 if colour else 2):
                chosen = torch.nonzero(self.jitter & (self.order[:, place] == operation)).flatten()
                if len(chosen):
                    factor = self.factors[chosen, operation].to(images.device)[:, None, None, None]
                    index = chosen.to(images.device)
                    result = result.index_copy(0, index, adjust(result[index], operation, factor))
        if colour and bool(self.gray.any()):
            gray = self.gray.to(images.device)[:, None, None, None]
            result = torch.where(gray, luma(result).expand_as(result), result)
        return result

    def _interpolation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices [b, 1, H, H] and [b, 1, W, W] that crop and resize from the left and from the right.

        The interpolation is bilinear and clamped to the box, so it reads the crop alone.
        """
        height, width = images.shape[-2:]
        top, left, tall, wide = self.box.to(images.device).T
        rows = _weights(top, tall, height).to(images.dtype)
        columns = _weights(left, wide, width).to(images.dtype)
        columns = torch.where(self.flip.to(images.device)[:, None, None], columns.flip(1), columns)
        return rows[:, None], columns.transpose(1, 2)[:, None]


def adjust(images: Tensor, operation: int, factor: Tensor) -> Tensor:
    """One colour operation on images [b, C, H, W] in [0, 1] with factors [b, 1, 1, 1]."""
    if operation == BRIGHTNESS:
        return (images * factor).clamp(0, 1)
    if operation == CONTRAST:
        mean = luma(images).mean(dim=(1, 2, 3), keepdim=True)
        return (mean + factor * (images - mean)).clamp(0, 1)
    if operation == SATURATION:
        gray = luma(images)
        return (gray + factor * (images - gray)).clamp(0, 1)
    return _turn_hue(images, factor)


def luma(images: Tensor) -> Tensor:
    """Brightness [b, 1, H, W] of images [b, 3 or 1, H, W]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Add to the hue of HSV; value and saturation stay."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = sixth + 6 * turn[:, 0]
    # A channel falls from the value by the chroma where the hue is far from the channel's own.
    distances = [(offset + sixth) % 6 for offset in (5, 3, 1)]
    falls = [torch.minimum(torch.minimum(k, 4 - k), torch.ones_like(k)).clamp_min(0) for k in distances]
    return torch.stack([value - chroma * fall for fall in falls], dim=1)


def _weights(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Bilinear weights [b, size, size] of the pixels of [start, start + length) stretched to the whole size."""
    place = (torch.arange(size, device=start.device) + 0.5) * (length / size)[:, None] - 0.5
    place = start[:, None] + torch.minimum(place.clamp_min(0), (length - 1)[:, None])
    return (1 - (place[:, :, None] - torch.arange(size, device=start.device)).abs()).clamp_min(0)


def _boxes(values: npt.NDArray[np.float32], size: tuple[int, int], smallest: float) -> npt.NDArray[np.int64]:
    """The first of the attempts [b, a, 3] (area, ratio, place) whose box fits, or else the whole image."""
    height, width = size
    area = height * width * (smallest * (1 - values[..., 0]) + values[..., 0])
    ratio = np.exp((2 * values[..., 1] - 1) * math.log(4 / 3))
    wide = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    tall = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (wide >= 1) & (tall >= 1) & (wide <= width) & (tall <= height)
    first = np.argmax(fits, axis=1)
    each = np.arange(len(values))
    some = fits.any(axis=1)
    tall, wide = np.where(some, tall[each, first], height), np.where(some, wide[each, first], width)
    places = (height - tall + 1) * (width - wide + 1)
    place = np.minimum((values[each, first, 2] * places).astype(np.int64), places - 1)
    top, left = np.divmod(place, width - wide + 1)
    return np.stack([top, left, tall, wide], axis=1)
