"""From the size at which a perturbation was crafted to the size that an image has, and back through a victim's eyes.

A protection dies where a victim's resize takes the perturbation away. So what is added at an image's own size is not
only interpolated, but corrected until the victim's resize gives the crafted perturbation back, as far as the budget
lets it: Landweber's iteration on the resize, projected onto the budget after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from hpcule.publish.collection import PublishNative
from hpcule.publish.texture import Texture
from hpcule.store.grey import is_grey, mean_of_channels
from hpcule.store.manifest import Manifest
from hpcule.store.read import StoreReader

CORRECTION_STEPS = 8
"""Number of correction steps after the interpolation."""

Publish = Callable[[Ids, Samples], Samples]
"""A function of ids and clean samples [n, C, H, W] that returns the published samples, of the same type."""
Perturb = Callable[[Ids], npt.NDArray[np.integer]]
"""A function of ids that returns perturbations [n, C, H, W] in levels."""
NoiseLevels = Callable[[Ids, Samples], npt.NDArray[np.integer]]
"""The same of ids and of the clean samples that it is added to."""
Display = Callable[[Native], Samples]
"""A function of an image of its own size that returns the 8-bit levels that somebody displays of it."""


def added(noise: NoiseLevels, levels: int) -> Publish:
    """Samples of 0..levels with noise, clipped."""

    def publish(ids: Ids, samples: Samples) -> Samples:
        noisy: Samples = np.clip(samples.astype(np.int64) + noise(ids, samples), 0, levels).astype(samples.dtype)
        return noisy

    return publish


def carried(delta: npt.NDArray[Any], size: tuple[int, ...], bound: float) -> npt.NDArray[Any]:
    """A perturbation [C, h, w] at another size [C, H, W], in fractions of levels of at most `bound`."""
    if delta.shape[1:] == size:
        return delta
    # Channel by channel: images may be large.
    return np.concatenate([_carried_channel(channel[None], size, bound) for channel in delta])


def own_size(store: StoreReader, sample: int, native: Native) -> npt.NDArray[Any]:
    """The perturbation of a sample at the size of its image [C, H, W], in fractions of levels; one channel for a grey
    image. It is as it was crafted where the size is the same, and else drawn again or resized."""
    manifest, size = store.manifest, native.pixels.shape[1:]
    if manifest.texture is None or size == manifest.sample_shape[1:]:
        return _onto(native, store.delta(np.array([sample]))[0], manifest.epsilon)
    texture = Texture(manifest.texture, manifest.seed, manifest.sample_shape, manifest.epsilon)
    return _onto(native, texture.at(sample, store.spectrum(sample), native.shown()), manifest.epsilon)


def _onto(native: Native, delta: npt.NDArray[Any], epsilon: float) -> npt.NDArray[Any]:
    if is_grey(native.pixels):
        delta = mean_of_channels(delta)
    return carried(delta, native.pixels.shape[1:], int(epsilon) if native.grid is None else epsilon)


def _carried_channel(channel: npt.NDArray[Any], size: tuple[int, ...], bound: float) -> npt.NDArray[np.float32]:
    crafted, working = torch.from_numpy(channel.astype(np.float32)), (channel.shape[1], channel.shape[2])
    moved = _resized(crafted, size).clamp_(-bound, bound)
    for _ in range(CORRECTION_STEPS):
        missing = crafted - _resized(moved, working)
        moved.add_(_resized(missing, size)).clamp_(-bound, bound)
    return moved.numpy()


def carries(manifest: Manifest, source: Source) -> bool:
    """Whether images are published at their own sizes: a source resizes them or cuts them into tiles, and a store's
    budget, being one of single values, can be kept at any size, and in any unit."""
    own_sizes = isinstance(source, Tiles) or source.native(0) is not None
    return manifest.budget.by_value and own_sizes


def files_of(source: Source) -> Source:
    """What is published of a source: its samples, or the images that they are tiles of."""
    return source.images if isinstance(source, Tiles) else source


def published_native(store: StoreReader, source: Source, image: int, native: Native) -> Native:
    """An image of its own size with the perturbation of a complete store; see `perturbed_native`."""
    if isinstance(source, Tiles):
        return perturbed_native(store.delta, store.manifest, source, image, native)
    return _moved(store.manifest, native, own_size(store, image, native))


def perturbed_native(perturb: Perturb, manifest: Manifest, source: Source, image: int, native: Native) -> Native:
    """An image of its own size with a perturbation; transparency stays as it is, and grey stays grey.

    Args:
        perturb: gives it.
        manifest: of the store whose budget it has.
        source: the samples that the store was made for.
        image: the number of a sample, or of the image that tiles were cut from.
        native: that image.
    """
    if isinstance(source, Tiles):
        delta = source.joined(image, perturb(source.of_image(image)))
    else:
        delta = perturb(np.array([image]))[0]
    return _moved(manifest, native, _onto(native, delta, manifest.epsilon))


def _moved(manifest: Manifest, native: Native, levels: npt.NDArray[Any]) -> Native:
    if (grid := budget_grid(manifest, native)) is not None:
        return native._replace(pixels=grid.moved(native.pixels, levels, manifest.epsilon))
    total = native.pixels + np.rint(levels).astype(np.int32)
    return native._replace(pixels=np.clip(total, 0, manifest.levels).astype(native.pixels.dtype))


def budget_grid(manifest: Manifest, native: Native) -> Grid | None:
    """The grid of an image of stored values, in the units of a store's budget; None for one of 8-bit levels."""
    if native.grid is None:
        return None
    return native.grid.in_stored_levels() if manifest.config.get("budget_unit") == "stored" else native.grid


def published_recording(store: StoreReader, sample: int, recording: Recording) -> Recording:
    """A recording as its file holds it, with the store's perturbation of a sample in every channel."""
    delta = store.delta(np.array([sample]))[0, 0, 0, : recording.samples.shape[1]]
    return perturbed_recording(recording, delta, store.manifest.epsilon)


def publishing(store: StoreReader, source: Source) -> Publish:
    """What a victim sees of samples as they are published: of those that the source resizes or cuts, at their own size,
    and resized or cut by the victim in turn; of recordings in their files' own channels and bits, and mixed in turn."""
    if source.rate is not None:
        return _mixing(store, source)
    if not carries(store.manifest, source):
        return store.published
    return displayed(partial(published_native, store, source), source)


def displayed(publish: PublishNative, source: Source, display: Display = Native.shown) -> Publish:
    """What a victim sees of images that are published at their own sizes.

    Args:
        publish: what becomes of an image.
        source: the samples that were read from the images, resized or cut into tiles.
        display: how the victim displays an image, before it resizes or cuts it in turn.
    """

    def see(ids: Ids, samples: Samples) -> Samples:
        result = np.empty_like(samples)
        if isinstance(source, Tiles):
            for image, rows, wanted in source.by_image(ids):
                result[rows] = source.cut(display(publish(image, native_of(source.images, image))))[wanted]
        else:
            for row, sample in zip(result, ids.tolist(), strict=True):
                row[...] = _seen(display(publish(sample, native_of(source, sample))), samples.shape[2:])
        return result

    return see


def native_of(source: Source, sample: int) -> Native:
    """The sample at its own size, of a source that has them."""
    native = source.native(sample)
    assert native is not None
    return native


def seen_change(store: StoreReader, source: Source) -> NoiseLevels:
    """How samples change in the eyes of a victim, as a function of ids and clean samples [n, C, H, W]: by the store's
    perturbations, or by what is left of a texture where the victim resizes images of other sizes."""
    if store.manifest.texture is None or isinstance(source, Tiles) or not carries(store.manifest, source):
        return store.delta_on
    publish = publishing(store, source)
    return lambda ids, samples: np.subtract(publish(ids, samples), samples, dtype=np.int32)


def as_crafted(source: Source, native: Native) -> Samples:
    """The samples [n, C, H, W] that a source reads from an image of its own size: the image resized, or its tiles."""
    if isinstance(source, Tiles):
        return source.cut(native.shown())
    shown = _seen(native.shown(), source.shape[1:])
    return np.broadcast_to(shown, source.shape)[None]  # grey fills all channels


def _seen(shown: Samples, size: tuple[int, ...]) -> Samples:
    return shown if shown.shape[1:] == size else resize_planes(shown, size[1])


def _mixing(store: StoreReader, source: Source) -> Publish:
    def publish(ids: Ids, samples: Samples) -> Samples:
        result = store.published(ids, samples)
        for row, sample in zip(result, ids.tolist(), strict=True):
            if (recording := source.recording(sample)) is not None:
                seen = working(published_recording(store, sample, recording))
                row[0, 0, : len(seen)] = seen
        return result

    return publish


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bicubic, and antialiased where it makes an image smaller, as Pillow does it."""
    return functional.interpolate(images[None], size, mode="bicubic", antialias=True)[0]
