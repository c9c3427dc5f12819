"""What a victim sees: samples as they are published, rounded to their grid, whole in memory where they fit."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpcule.data.reader import to_tensor
from hpcule.data.source import Ids, Samples, Source
from hpcule.data.working import WorkingFile
from hpcule.publish.carry import Publish, publishing
from hpcule.store.budget import magnitude
from hpcule.store.read import StoreReader
from hpcule.world.keyed import bits, key

BLOCK = 1024
"""Samples read at a time."""


Kind = Literal["clean", "part", "noise", "matched", "protected", "untrained"]
"""Of a training set: two controls on clean samples, two on random noise, and what a store publishes."""


def publisher(kind: Kind, store: StoreReader | None, seed: int, source: Source) -> Publish:
    """What becomes of a clean sample of `source` in a training set of this kind; clean ones need no store."""
    if kind in ("clean", "part"):
        return clean
    assert store is not None
    if kind in ("noise", "matched"):
        return random_noise(store, seed, source, matched=kind == "matched")
    return publishing(store, source)


def clean(ids: Ids, samples: Samples) -> Samples:
    """The clean control: published as they are."""
    return samples


def random_noise(store: StoreReader, seed: int, source: Source, *, matched: bool = False) -> Publish:
    """The random-noise control: each value moved by the whole budget up or down, shared by whatever shares a delta.

    A pattern shared by a class or a cluster protects by itself, whatever it looks like; what a method adds shows only
    against that. `matched` noise has the signs of the other, and is as strong as the delta in whose place it stands:
    each value moves by the root mean square of that delta, rounded to levels. So is the control of a method without a
    bound. A budget in L2 is spread over all values, rounded down to levels; of one in pixels, so many random pixels get
    the random colours of a corner of the colour cube, and so do pixels that are free in another budget. What was padded
    in `source`, whose store this is, stays as it is.
    """
    manifest = store.manifest
    if manifest.norm == "l0":
        return _random_pixels(store, int(manifest.epsilon), seed)
    noise = _random_signs(store, seed, source, matched=matched)
    if not manifest.free_pixels:
        return noise
    pixels = _random_pixels(store, manifest.free_pixels, seed)
    return lambda ids, samples: pixels(ids, noise(ids, samples))


def noise_basis(store: StoreReader) -> tuple[object, ...] | None:
    """All that `random_noise` on the store's samples depends on besides the seed; None: on the store itself.

    Clusters, and deltas of which the noise takes the strength, are the store's own.
    """
    manifest = store.manifest
    unbounded = manifest.norm == "linf" and manifest.epsilon >= manifest.levels
    if unbounded or manifest.unit not in ("sample", "class"):
        return None
    return manifest.unit, manifest.norm, manifest.epsilon, manifest.free_pixels


def _random_signs(store: StoreReader, seed: int, source: Source, *, matched: bool) -> Publish:
    manifest = store.manifest
    values, width = int(np.prod(manifest.sample_shape)), manifest.sample_shape[2]
    unbounded = manifest.norm == "linf" and manifest.epsilon >= manifest.levels
    level = manifest.epsilon / (np.sqrt(values) if manifest.norm == "l2" else 1)
    purpose = key(seed, "random-noise control")

    def publish(ids: Ids, samples: Samples) -> Samples:
        group = store.group(ids)
        words = bits(purpose, ids if group is None else group, -(-values // 64))
        up = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :values].reshape(samples.shape)
        strength = np.int32(level)
        own = source.lengths(ids).reshape(-1, 1, 1, 1)
        if matched or unbounded:
            delta = store.delta(ids)
            if manifest.free_pixels:
                delta = np.clip(delta, -int(level), int(level))
            root_mean_squares = magnitude(delta, "l2") / np.sqrt(values / width * own.reshape(-1))
            strength = np.rint(root_mean_squares).astype(np.int32).reshape(-1, 1, 1, 1)
        noise = (2 * up.astype(np.int32) - 1) * strength * (np.arange(width) < own)
        noisy: Samples = np.clip(samples.astype(np.int32) + noise, 0, manifest.levels).astype(samples.dtype)
        return noisy

    return publish


def _random_pixels(store: StoreReader, count: int, seed: int) -> Publish:
    manifest = store.manifest
    channels, height, width = manifest.sample_shape
    purpose = key(seed, "random-pixel control")

    def publish(ids: Ids, samples: Samples) -> Samples:
        group = store.group(ids)
        words = bits(purpose, ids if group is None else group, 2 * count)
        places = (words[:, :count] % np.uint64(height * width)).astype(np.int64)
        corners = (words[:, count:, None] >> np.arange(channels, dtype=np.uint64)) & np.uint64(1)
        noisy: Samples = samples.copy()
        rows = np.arange(len(samples))[:, None]
        # A view of the copy, channels last: [n, H * W, C].
        pixels = np.moveaxis(noisy.reshape(len(noisy), channels, -1), 1, 2)
        pixels[rows, places] = corners.astype(samples.dtype) * samples.dtype.type(manifest.levels)
        return noisy

    return publish


class Published:
    """Samples behind consecutive numbers 0..n-1, with labels, as a victim's training or test set."""

    def __init__(self, source: Source, publish: Publish = clean, *, ids: Ids | None = None, resident: int) -> None:
        """Take `ids` of a labelled source (all by default).

        Args:
            source: clean samples.
            publish: what becomes of them.
            ids: which; None: all.
            resident: bytes that may be kept in memory once they have been read; see `load`.
        """
        assert source.labels is not None
        self.source = source
        self.ids = np.arange(len(source), dtype=np.int64) if ids is None else ids
        self.labels = torch.from_numpy(source.labels[self.ids])
        self._publish = publish
        self._resident = resident
        self._kept: Tensor | None = None
        self._working: WorkingFile | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def through(self, change: Publish) -> Published:
        """The same set, each sample as `change` makes it of what was published."""

        def publish(ids: Ids, samples: Samples) -> Samples:
            return change(ids, self._publish(ids, samples))

        return Published(self.source, publish, ids=self.ids, resident=self._resident)

    def load(self) -> None:
        """Read what fits into memory, which `take` does otherwise at its first call."""
        if self._kept is None and self._fits:
            blocks = range(0, len(self), BLOCK)
            self._kept = torch.cat([to_tensor(self._make(np.arange(s, min(s + BLOCK, len(self))))) for s in blocks])

    def take(self, numbers: Ids) -> tuple[Tensor, Tensor]:
        """Integer samples [n, C, H, W] and labels [n]."""
        self.load()
        if self._kept is not None:
            samples = self._kept[torch.from_numpy(numbers)]
        else:
            samples = to_tensor(self._beyond_memory().read(numbers) if self.source.decodes else self._make(numbers))
        return samples, self.labels[torch.from_numpy(numbers)]

    def images(self, numbers: Ids, device: torch.device) -> tuple[Tensor, Tensor]:
        """Samples float32 [n, C, H, W] in [0, 1] and labels [n], on a device."""
        samples, labels = self.take(numbers)
        return samples.to(device).float().div_(self.source.levels), labels.to(device)

    @property
    def _fits(self) -> bool:
        item = 1 if self.source.levels == 255 else 4
        return len(self) * int(np.prod(self.source.shape)) * item <= self._resident

    def _beyond_memory(self) -> WorkingFile:
        if self._working is None:
            row = np.empty(self.source.shape, self.source.dtype)
            self._working = WorkingFile(len(self), row, self._make)
        return self._working

    def _make(self, numbers: Ids) -> Samples:
        ids = self.ids[numbers]
        return self._publish(ids, self.source.read(ids))
