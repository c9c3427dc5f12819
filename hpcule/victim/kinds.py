"""Kinds of training set: what becomes of a clean sample in each, random noise among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from hpcule.data.source import Ids, Native, Samples, Source, StoredLabels
from hpcule.data.tiles import Tiles
from hpcule.publish.carry import (
    NoiseLevels,
    Perturb,
    Publish,
    added,
    carries,
    perturbed_native,
    published_native,
    publishing,
    seen_change,
)
from hpcule.publish.collection import PublishNative
from hpcule.store.budget import Budget, magnitude
from hpcule.store.grey import is_grey
from hpcule.store.manifest import Manifest
from hpcule.store.read import StoreReader
from hpcule.victim.equal_spectrum import equal_spectrum_noise
from hpcule.world.keyed import bits, key

Kind = Literal["clean", "part", "noise", "matched", "spectrum", "untrained", "protected"]
TITLES: Mapping[Kind, str] = {
    "clean": "clean control",
    "part": "clean part alone",
    "noise": "random-noise control",
    "matched": "random noise, same strength",
    "spectrum": "random noise, same spectrum",
    "untrained": "untrained generator",
    "protected": "protected",
}
"""Names of the kinds in reports, in the order of their columns. `part` is the clean part of a mixture; `noise` moves
every value by the whole budget and `matched` by as much as the store's deltas do, whose mean spectrum `spectrum` has
as well; `untrained` is the store of a method
whose training is left out, and `protected` the store itself."""


SHORT_TITLES: Mapping[Kind, str] = {
    **TITLES,
    "part": "clean part",
    "noise": "random noise",
    "matched": "same strength",
    "spectrum": "same spectrum",
}
"""Names where there is room for two short words one above the other."""


@dataclass(frozen=True)
class PlannedStore:
    """A store that is not crafted yet, as far as its random-noise control depends on it; see `noise_basis`.

    Attributes:
        manifest: as it is planned.
        labels: of the source; what is shared by a class is shared by a label.
    """

    manifest: Manifest
    labels: StoredLabels | None

    def group(self, ids: Ids) -> npt.NDArray[np.int64] | None:
        """Return the group int64 [n] of each id, or None where perturbations are not shared."""
        if self.manifest.unit == "sample":
            return None
        assert self.manifest.unit == "class"
        assert self.labels is not None
        return self.labels[ids].astype(np.int64)


Basis = StoreReader | PlannedStore
"""What random noise is derived from."""


def publisher(kind: Kind, store: Basis | None, seed: int, source: Source) -> Publish:
    """What becomes of a clean sample of `source` in a training set of this kind; clean ones need no store."""
    if kind in ("clean", "part"):
        return clean
    assert store is not None
    if kind in ("noise", "matched"):
        return random_noise(store, seed, source, matched=kind == "matched")
    assert isinstance(store, StoreReader)
    if kind == "spectrum":
        return added(equal_spectrum_noise(store, seed, source), store.manifest.levels)
    return publishing(store, source)


def clean(ids: Ids, samples: Samples) -> Samples:
    """The clean control: published as they are."""
    return samples


def clean_native(image: int, native: Native) -> Native:
    """The clean control of images at their own sizes."""
    return native


def native_publisher(
    kind: Kind, store: Basis | None, seed: int, source: Source, protected: Ids | None = None
) -> PublishNative | None:
    """The same of an image of `source` at its own size.

    Args:
        kind: of the training set.
        store: whose perturbation it has; clean samples need none.
        seed: of random noise.
        source: whose store it is.
        protected: ids that are published; all others are clean. None: all.

    Returns:
        None where perturbations are not carried to that size.
    """
    if kind in ("clean", "part"):
        return clean_native
    assert store is not None
    if not carries(store.manifest, source):
        return None
    if kind in ("untrained", "protected") and not isinstance(source, Tiles):
        assert isinstance(store, StoreReader)
        chosen = None if protected is None else frozenset(protected.tolist())
        publish = partial(published_native, store, source)
        return lambda image, native: publish(image, native) if chosen is None or image in chosen else native
    perturb, manifest = _perturbation(kind, store, seed, source), store.manifest
    if kind == "spectrum":  # such noise has the strength of the deltas, but single values of it are not bounded
        manifest = replace(manifest, epsilon=float(manifest.levels))

    def part(ids: Ids) -> npt.NDArray[np.integer]:
        chosen = np.ones(len(ids), np.bool_) if protected is None else np.isin(ids, protected)
        return perturb(ids) * chosen[:, None, None, None]

    return lambda image, native: perturbed_native(part, manifest, source, image, native)


def _perturbation(kind: Kind, store: Basis, seed: int, source: Source) -> Perturb:
    """What is added to samples in a training set of this kind, which is not the clean one."""
    if kind in ("noise", "matched"):
        noise = _random_signs(store, seed, source, matched=kind == "matched")
    else:
        assert isinstance(store, StoreReader)
        if kind != "spectrum":
            return store.delta
        noise = equal_spectrum_noise(store, seed, source)
    return lambda ids: noise(ids, source.read(ids))


def random_noise(store: Basis, seed: int, source: Source, *, matched: bool = False) -> Publish:
    """The random-noise control: each value moved by the whole budget up or down, shared by whatever shares a delta.

    A pattern shared by a class or a cluster protects by itself, whatever it looks like; what a method adds shows only
    against that. Where a method gives every pixel the noise of its class in the mask, so does the control. `matched`
    noise has the signs of the other, and is as strong as the delta in whose place it stands: each value moves by the
    root mean square of that delta, rounded to levels. So is the control of a method without a bound. A budget in L2 is
    spread over all values, rounded down to levels; of one in pixels, as many random pixels get the random colours of a
    corner of the colour cube, and so do pixels that are free in another budget. Grey samples stay grey: all their
    channels get the noise of the first. What was padded in `source`, whose store this is, stays as it is.
    """
    manifest = store.manifest
    if manifest.norm == "l0":
        return _random_pixels(store, int(manifest.epsilon), seed)
    noise = added(_random_signs(store, seed, source, matched=matched), manifest.levels)
    if not manifest.free_pixels:
        return noise
    pixels = _random_pixels(store, manifest.free_pixels, seed)
    return lambda ids, samples: pixels(ids, noise(ids, samples))


def noise_basis(unit: str, budget: Budget, levels: int, task: str = "label") -> tuple[object, ...] | None:
    """All that `random_noise` depends on besides samples and seed; None: also on the store.

    Clusters, and deltas whose strength the noise takes, are the store's own.

    Args:
        unit: what shares a delta: `sample`, `class` or `cluster`.
        budget: of the store.
        levels: of the samples' grid; a budget of all of them is no bound.
        task: what the method crafts for; several tasks are joined with `+`.
    """
    if _is_unbounded(budget, levels) or unit not in ("sample", "class"):
        return None
    by_pixel = ("segmentation",) if _by_pixel(task) else ()
    return (unit, budget.norm, budget.epsilon, budget.free_pixels, *by_pixel)


def _is_unbounded(budget: Budget, levels: int) -> bool:
    return budget.norm == "linf" and budget.epsilon >= levels


def _random_signs(store: Basis, seed: int, source: Source, *, matched: bool) -> NoiseLevels:
    manifest = store.manifest
    values, width = int(np.prod(manifest.sample_shape)), manifest.sample_shape[2]
    unbounded = _is_unbounded(manifest.budget, manifest.levels)
    by_pixel = _by_pixel(task_of_store(manifest))
    level = manifest.epsilon / (np.sqrt(values) if manifest.norm == "l2" else 1)
    purpose = key(seed, "random-noise control")

    def draw(ids: Ids, samples: Samples) -> npt.NDArray[np.integer]:
        up = _signs_by_pixel(purpose, source, ids) if by_pixel else _signs(purpose, store.group(ids), ids, samples)
        strength = np.int32(level)
        own = source.lengths(ids).reshape(-1, 1, 1, 1)
        if matched or unbounded:
            assert isinstance(store, StoreReader)
            delta = seen_change(store, source)(ids, samples)
            if manifest.free_pixels:
                delta = np.clip(delta, -int(level), int(level))
            root_mean_squares = magnitude(delta, "l2") / np.sqrt(values / width * own.reshape(-1))
            strength = np.rint(root_mean_squares).astype(np.int32).reshape(-1, 1, 1, 1)
        noise = up * strength * (np.arange(width) < own)
        return np.where(is_grey(samples)[:, None, None, None], noise[:, :1], noise)

    return draw


def _signs(purpose: int, group: npt.NDArray[np.int64] | None, ids: Ids, samples: Samples) -> npt.NDArray[np.int32]:
    """A sign for every value of samples [n, C, H, W], the same for all of a group."""
    values = int(np.prod(samples.shape[1:]))
    words = bits(purpose, ids if group is None else group, -(-values // 64))
    up = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :values].reshape(samples.shape)
    return 2 * up.astype(np.int32) - 1


def _signs_by_pixel(purpose: int, source: Source, ids: Ids) -> npt.NDArray[np.int32]:
    """A sign for every value of samples [n, C, H, W], the same in all at pixels of one class; 0 where there is none."""
    assert source.masks is not None
    masks, classes = source.masks.read(ids), np.arange(len(source.masks.names))
    patterns = _signs(purpose, None, classes, np.empty((len(classes), *source.shape), np.uint8))
    signs = np.zeros((len(ids), *source.shape), np.int32)
    for number, pattern in enumerate(patterns):
        signs += pattern * (masks == number)[:, None]
    return signs


def _by_pixel(task: str) -> bool:
    """Whether pixels of a class share the noise of a control."""
    return "segmentation" in task.split("+")


def task_of_store(manifest: Manifest) -> str:
    """What the method of a store crafted for; several tasks are joined with `+`."""
    return str(manifest.config.get("method", {}).get("task", "label"))


def _random_pixels(store: Basis, count: int, seed: int) -> Publish:
    manifest = store.manifest
    channels, height, width = manifest.sample_shape
    purpose = key(seed, "random-pixel control")

    def publish(ids: Ids, samples: Samples) -> Samples:
        group = store.group(ids)
        words = bits(purpose, ids if group is None else group, 2 * count)
        places = (words[:, :count] % np.uint64(height * width)).astype(np.int64)
        corners = (words[:, count:, None] >> np.arange(channels, dtype=np.uint64)) & np.uint64(1)
        corners = np.where(is_grey(samples)[:, None, None], corners[:, :, :1], corners)
        noisy: Samples = samples.copy()
        rows = np.arange(len(samples))[:, None]
        # A view of the copy, channels last: [n, H * W, C].
        pixels = np.moveaxis(noisy.reshape(len(noisy), channels, -1), 1, 2)
        pixels[rows, places] = corners.astype(samples.dtype) * samples.dtype.type(manifest.levels)
        return noisy

    return publish
