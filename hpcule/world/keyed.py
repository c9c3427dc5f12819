"""Randomness that depends on (seed, purpose, sample id) and never on a rank or on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
TILE = 1 << 14
"""Values hashed at a time: eight bytes each, so that a tile stays in the processor's cache."""


def key(seed: int, *purpose: str | int) -> int:
    """A 64-bit key for one use of randomness: key(seed, "augment", epoch)."""
    text = "\0".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def bits(purpose: int, ids: npt.NDArray[np.int64], count: int) -> Words:
    """64 random bits [len(ids), count] for each id: SplitMix64 (Steele et al. 2014) as a counter-based generator.

    Two rounds: the first gives each id its own stream start, the second walks `count` steps from there.
    """
    # Arrays of uint64 wrap around silently, which is what the generator wants; scalars would warn.
    streams = _mix(_mix(ids.astype(np.uint64) + np.uint64(1)) ^ np.uint64(purpose))
    return _mix(streams[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def uniform(purpose: int, ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float32]:
    """Values [len(ids), count] in [0, 1), each a multiple of 2^-24 and so exact in float32."""
    words = (count + 1) // 2
    result = np.empty((len(ids), 2 * words), np.float32)
    rows = max(1, TILE // max(1, words))
    for start in range(0, len(ids), rows):
        halves = bits(purpose, ids[start : start + rows], words).view(np.uint32)
        halves >>= np.uint32(8)
        # As int32, from which numpy converts several times faster than from uint32.
        result[start : start + rows] = halves.view(np.int32)
        result[start : start + rows] *= np.float32(2**-24)
    return result[:, :count]


def uniform_int16(purpose: int, ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int16]:
    """Uniform integers of 16 bits [len(ids), count], four of each word of `bits`."""
    words = (count + 3) // 4
    result = np.empty((len(ids), words), np.uint64)
    rows = max(1, TILE // max(1, words))
    for start in range(0, len(ids), rows):
        result[start : start + rows] = bits(purpose, ids[start : start + rows], words)
    return result.view(np.int16)[:, :count]


def normal(purpose: int, ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Standard normal values [len(ids), count], by Box and Muller's transform."""
    pairs = (count + 1) // 2
    # 53 bits make a float64 in [0, 1); away from 0 for the logarithm.
    values = (bits(purpose, ids, 2 * pairs) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log1p(-values[:, :pairs])), 2 * np.pi * values[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def order(purpose: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ids in an order that depends on the key and on each id alone."""
    return ids[np.argsort(bits(purpose, ids, 1)[:, 0], kind="stable")]


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser, in place."""
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= MULTIPLIERS[0]
    words ^= np.right_shift(words, np.uint64(27), out=shifted)
    words *= MULTIPLIERS[1]
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words
