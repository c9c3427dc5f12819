"""From the size at which a perturbation was crafted to the size that an image has, and back through a victim's eyes.

A protection dies where a victim's resize takes the perturbation away. So what is added at an image's own size is not
only interpolated, but corrected until the victim's resize gives the crafted perturbation back, as far as the budget
lets it: Landweber's iteration on the resize, projected onto the budget after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.grid import Grid
from hpcule.data.resize import resize_planes
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.recording import perturbed_recording, working
from hpcule.data.tiles import Tiles
from hpcule.store.grey import is_grey, mean_of_channels
from hpcule.store.read import StoreReader

CORRECTION_STEPS = 8
"""Number of correction steps after the interpolation."""

Publish = Callable[[Ids, Samples], Samples]
"""A function of ids and clean samples [n, C, H, W] that returns the published samples, of the same type."""


def carried(delta: npt.NDArray[np.integer], size: tuple[int, int], epsilon: float) -> npt.NDArray[np.int32]:
    """A perturbation [C, h, w] at another size [C, H, W], in whole levels of at most `epsilon`."""
    moved: npt.NDArray[np.int32] = np.rint(_carried(delta, size, int(epsilon))).astype(np.int32)
    return moved


def carried_onto(pixels: Samples, delta: npt.NDArray[np.integer], epsilon: float) -> npt.NDArray[np.int32]:
    """A perturbation [C, h, w] at the size of an image [C, H, W], in whole levels; one channel for a grey image."""
    return carried(_grey_on_grey(pixels, delta), (pixels.shape[1], pixels.shape[2]), epsilon)


def _grey_on_grey(pixels: Samples, delta: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return mean_of_channels(delta) if is_grey(pixels) else delta


def _carried(delta: npt.NDArray[Any], size: tuple[int, int], bound: float) -> npt.NDArray[Any]:
    """The perturbation at another size before it is rounded, in fractions of levels."""
    if delta.shape[1:] == size:
        return delta
    # Channel by channel: images may be large.
    return np.concatenate([_carried_channel(channel[None], size, bound) for channel in delta])


def _carried_channel(channel: npt.NDArray[Any], size: tuple[int, int], bound: float) -> npt.NDArray[np.float32]:
    crafted, working = torch.from_numpy(channel.astype(np.float32)), (channel.shape[1], channel.shape[2])
    moved = _resized(crafted, size).clamp_(-bound, bound)
    for _ in range(CORRECTION_STEPS):
        missing = crafted - _resized(moved, working)
        moved.add_(_resized(missing, size)).clamp_(-bound, bound)
    return moved.numpy()


def carries(store: StoreReader, source: Source) -> bool:
    """Whether images are published at their own sizes: a source resizes them or cuts them into tiles, and the store's
    budget, being one of single values, can be kept at any size, and in any unit."""
    manifest = store.manifest
    own_sizes = isinstance(source, Tiles) or source.native(0) is not None
    return manifest.norm == "linf" and not manifest.free_pixels and own_sizes


def files_of(source: Source) -> Source:
    """What is published of a source: its samples, or the images that they are tiles of."""
    return source.images if isinstance(source, Tiles) else source


def published_native(store: StoreReader, source: Source, image: int, native: Native) -> Native:
    """An image of its own size with the store's perturbation; transparency stays as it is, and grey stays grey.

    Args:
        store: complete.
        source: the samples that it was made for.
        image: the number of a sample, or of the image that tiles were cut from.
        native: that image.
    """
    manifest = store.manifest
    if isinstance(source, Tiles):
        delta = source.joined(image, store.delta(source.of_image(image)))
    else:
        delta = store.delta(np.array([image]))[0]
    if (grid := budget_grid(store, native)) is not None:
        levels = _carried(_grey_on_grey(native.pixels, delta), native.pixels.shape[1:], manifest.epsilon)
        return native._replace(pixels=grid.moved(native.pixels, levels, manifest.epsilon))
    total = native.pixels + carried_onto(native.pixels, delta, manifest.epsilon)
    return native._replace(pixels=np.clip(total, 0, manifest.levels).astype(native.pixels.dtype))


def budget_grid(store: StoreReader, native: Native) -> Grid | None:
    """The grid of an image of stored values, in the units of the store's budget; None for one of 8-bit levels."""
    if native.grid is None:
        return None
    return native.grid.in_stored_levels() if store.manifest.config.get("budget_unit") == "stored" else native.grid


def published_recording(store: StoreReader, sample: int, recording: Recording) -> Recording:
    """A recording as its file holds it, with the store's perturbation of a sample in every channel."""
    delta = store.delta(np.array([sample]))[0, 0, 0, : recording.samples.shape[1]]
    return perturbed_recording(recording, delta, store.manifest.epsilon)


def publishing(store: StoreReader, source: Source) -> Publish:
    """What a victim sees of samples as they are published: of those that the source resizes or cuts, at their own size,
    and resized or cut by the victim in turn; of recordings in their files' own channels and bits, and mixed in turn."""
    if source.rate is not None:
        return _mixing(store, source)
    if not carries(store, source):
        return store.published
    if isinstance(source, Tiles):
        return _cutting(store, source)

    def publish(ids: Ids, samples: Samples) -> Samples:
        result = np.empty_like(samples)
        for row, sample in zip(result, ids.tolist(), strict=True):
            native = source.native(sample)
            assert native is not None
            row[...] = _seen(published_native(store, source, sample, native).shown(), samples.shape[2:])
        return result

    return publish


def as_crafted(source: Source, native: Native) -> Samples:
    """The samples [n, C, H, W] that a source reads from an image of its own size: the image resized, or its tiles."""
    if isinstance(source, Tiles):
        return source.cut(native.shown())
    shown = _seen(native.shown(), source.shape[1:])
    return np.broadcast_to(shown, source.shape)[None]  # grey fills all channels


def _seen(shown: Samples, size: tuple[int, ...]) -> Samples:
    return shown if shown.shape[1:] == size else resize_planes(shown, size[1])


def _cutting(store: StoreReader, source: Tiles) -> Publish:
    def publish(ids: Ids, samples: Samples) -> Samples:
        result = np.empty_like(samples)
        for image, rows, wanted in source.by_image(ids):
            native = source.images.native(image)
            assert native is not None
            result[rows] = source.cut(published_native(store, source, image, native).shown())[wanted]
        return result

    return publish


def _mixing(store: StoreReader, source: Source) -> Publish:
    def publish(ids: Ids, samples: Samples) -> Samples:
        result = store.published(ids, samples)
        for row, sample in zip(result, ids.tolist(), strict=True):
            if (recording := source.recording(sample)) is not None:
                seen = working(published_recording(store, sample, recording))
                row[0, 0, : len(seen)] = seen
        return result

    return publish


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, and antialiased where it makes an image smaller, as Pillow does it."""
    return functional.interpolate(images[None], size, mode="bicubic", antialias=True)[0]
