"""The equal-spectrum control: random noise with the mean spectrum and the strength of a store's deltas.

White noise differs from a perturbation in more than what was crafted: crops and averages hide it, and any smooth
pattern stands out against it. This noise has the store's own energy at each frequency, and the same relation between
channels; it is shared by what shares a delta.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcule.data.source import Ids, Samples, Source
from hpcule.publish.carry import NoiseLevels, seen_change
from hpcule.store.grey import is_grey
from hpcule.store.read import StoreReader
from hpcule.world.coloured import Spectra, to_images, white_spectra
from hpcule.world.keyed import key, order

MOST = 1024
"""Largest number of deltas that the mean spectrum is taken over."""
BLOCK = 64
"""Deltas that are transformed at a time."""


def equal_spectrum_noise(store: StoreReader, seed: int, source: Source) -> NoiseLevels:
    """Such noise in levels; on grey samples it is grey, and what was padded in `source` gets none.

    Args:
        store: complete.
        seed: of the noise.
        source: whose store this is.
    """
    mixing, change = _roots(mean_spectrum(store, source)), seen_change(store, source)
    purpose = key(seed, "equal-spectrum control")
    width = store.manifest.sample_shape[2]

    def draw(ids: Ids, samples: Samples) -> npt.NDArray[np.integer]:
        group = store.group(ids)
        white = white_spectra(purpose, ids if group is None else group, store.manifest.sample_shape)
        noise = to_images(np.einsum("cdhw,ndhw->nchw", mixing, white), width)
        grey = is_grey(samples)
        noise[grey] = noise[grey].mean(1, keepdims=True)
        noise *= np.arange(width) < source.lengths(ids).reshape(-1, 1, 1, 1)
        noise *= _strength(change(ids, samples)) / np.maximum(_strength(noise), np.finfo(np.float32).tiny)
        return np.rint(noise).astype(np.int64)

    return draw


def mean_spectrum(store: StoreReader, source: Source) -> npt.NDArray[np.complex128]:
    """The mean over deltas of the products of their channels' spectra [C, C, H, W // 2 + 1]."""
    manifest, change = store.manifest, seen_change(store, source)
    channels, height, width = manifest.sample_shape
    chosen = np.sort(order(key(0, "mean spectrum"), np.arange(manifest.n))[:MOST])
    total = np.zeros((channels, channels, height, width // 2 + 1), np.complex128)
    for start in range(0, len(chosen), BLOCK):
        ids = chosen[start : start + BLOCK]
        spectra = np.fft.rfft2(change(ids, source.read(ids)).astype(np.float64))
        total += np.einsum("nchw,ndhw->cdhw", spectra, spectra.conj())
    return total / len(chosen)


def _roots(products: npt.NDArray[np.complex128]) -> Spectra:
    """Matrices R with R R* = products at each frequency: what makes white spectra have these products."""
    values, vectors = np.linalg.eigh(np.moveaxis(products, (0, 1), (-2, -1)))
    roots = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    found: Spectra = np.moveaxis(roots, (-2, -1), (0, 1)).astype(np.complex64)
    return found


def _strength(values: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Root mean square of each sample [n, 1, 1, 1]."""
    found: npt.NDArray[np.float32] = np.sqrt(np.square(values.astype(np.float32)).mean((1, 2, 3), keepdims=True))
    return found
