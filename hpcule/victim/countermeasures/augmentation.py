"""Countermeasures that act again on every batch, with draws that are keyed by sample id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Ids
from hpcule.victim.countermeasures import clinical
from hpcule.victim.countermeasures.plasma import plasma_brightness, plasma_contrast
from hpcule.victim.countermeasures.table import Applied
from hpcule.victim.countermeasures.trivial_augment import trivial_augment
from hpcule.world.keyed import key, uniform


def augment(images: Tensor, steps: Sequence[Applied], purpose: int, ids: Ids) -> Tensor:
    """Apply steps in order to images [b, C, H, W] in [0, 1]; the same (purpose, id) always gives the same draw."""
    for number, step in enumerate(steps):
        images = _STEPS[step.name](images, step.strength or 0, purpose ^ number, ids)
    return images


def cutout(images: Tensor, percent: float, purpose: int, ids: Ids) -> Tensor:
    """A black square anywhere, its centre inside the image (DeVries and Taylor, arXiv 1708.04552)."""
    height, width = images.shape[2:]
    side = max(1, round(width * percent / 100))
    draws = torch.from_numpy(uniform(purpose, ids, 2).copy()).to(images.device)
    rows = _inside((draws[:, 0] * height).long(), side, height)
    columns = _inside((draws[:, 1] * width).long(), side, width)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def resize(images: Tensor, percent: float, purpose: int, ids: Ids) -> Tensor:
    """Shrink to a random share of the size, at least `percent`, and enlarge again; bilinear and antialiased."""
    height, width = images.shape[2:]
    shares = percent / 100 + (1 - percent / 100) * torch.from_numpy(uniform(purpose, ids, 1)[:, 0].copy())
    rows = (shares * height).round().clamp_min(1).long().to(images.device)
    result = images.clone()
    for tall in torch.unique(rows).tolist():
        chosen = torch.nonzero(rows == tall).flatten()
        small = (tall, max(1, round(tall * width / height)))
        shrunk = functional.interpolate(images[chosen], small, mode="bilinear", antialias=True)
        result[chosen] = functional.interpolate(shrunk, (height, width), mode="bilinear")
    return result


def coin(images: Tensor, reach: float, purpose: int, ids: Ids) -> Tensor:
    """Each pixel is drawn from a place up to `reach` pixels away on either axis, bilinear, round the borders.

    COIN (Li et al., arXiv 2311.18403), made against methods that convolve.
    """
    batch, _, height, width = images.shape
    draws = torch.from_numpy(uniform(purpose, ids, 2 * height * width)).to(images.device)
    moved = reach * (2 * draws.view(batch, 2, height, width) - 1)
    rows = moved[:, 0] + torch.arange(height, device=images.device)[:, None]
    columns = moved[:, 1] + torch.arange(width, device=images.device)
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]

    def pixel(row: Tensor, column: Tensor) -> Tensor:
        place = (row.long() % height * width + column.long() % width).flatten(1)
        return images.flatten(2).gather(2, place[:, None].expand(-1, images.shape[1], -1)).view_as(images)

    above = (1 - right) * pixel(top, left) + right * pixel(top, left + 1)
    below = (1 - right) * pixel(top + 1, left) + right * pixel(top + 1, left + 1)
    return (1 - down) * above + down * below


def ueraser(images: Tensor, strength: float, purpose: int, ids: Ids) -> Tensor:
    """UEraser (Qin et al., arXiv 2303.15127): clouds of brightness, then of contrast, channels shuffled half of the
    time, and one operation of TrivialAugment."""
    clouded = plasma_contrast(plasma_brightness(images, key(purpose, "brightness"), ids), key(purpose, "contrast"), ids)
    return trivial_augment(shuffle_channels(clouded, key(purpose, "channels"), ids), key(purpose, "trivial"), ids)


def shuffle_channels(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Put the channels of every other image, on average, into a random order."""
    channels = images.shape[1]
    values = torch.from_numpy(uniform(purpose, ids, 1 + channels).copy())
    order = torch.where(values[:, :1] < 0.5, values[:, 1:].argsort(dim=1), torch.arange(channels))
    index = order.to(images.device)[:, :, None, None].expand_as(images)
    return images.gather(1, index)


def _inside(centre: Tensor, side: int, length: int) -> Tensor:
    """Which of 0..length-1 [b, length] lie within a stretch of `side` around each centre [b]."""
    place = torch.arange(length, device=centre.device) - centre[:, None] + side // 2
    return (place >= 0) & (place < side)


_STEPS: dict[str, Callable[[Tensor, float, int, Ids], Tensor]] = {
    "cutout": cutout,
    "resize": resize,
    "coin": coin,
    "gamma": clinical.random_gamma,
    "noise": clinical.gaussian_noise,
    "affine": clinical.rotate_and_scale,
    "contrast": clinical.brightness_and_contrast,
    "sharpen": clinical.random_sharpening,
    "random-grayscale": clinical.random_grayscale,
    "ueraser-lite": ueraser,
    "ueraser": ueraser,
    "ueraser-max": ueraser,
}
