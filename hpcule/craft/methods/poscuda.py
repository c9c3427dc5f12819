"""PosCUDA: position-based convolution for unlearnable audio (Gokul, Dubnov; arXiv 2401.02135).

Each class has a private filter, as in CUDA, and a private position: only a short patch of a recording, at its class's
position, is convolved with its class's filter. The rest stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Problem
from hpcule.craft.parts.model_free import Floats, Integers, SampleWise
from hpcule.data.source import Ids, Labels
from hpcule.store.budget import Budget
from hpcule.world.keyed import bits, key, order, uniform


@dataclass(frozen=True, kw_only=True)
class PosCUDAConfig(MethodConfig):
    """The paper's values are not public: these are for speech of one word at 8,000 samples a second."""

    name: str = "poscuda"
    patch: int | None = setting(200, at_least=2)
    """Samples that are convolved together; None: the whole recording, which is CUDA in one dimension."""
    patches: int = setting(1, at_least=1)
    """Patches a class; where two overlap, their changes add up."""
    region: int = setting(2000, at_least=1)
    """Number of samples from a recording's start within which patches begin."""
    taps: int = setting(31, at_least=3)
    """Length of the filters, odd."""
    blur: float = setting(1.0, above=0, at_most=1)
    """Taps are uniform between 0 and this, but for one of 1: larger blurs and protects more."""
    normalise: Literal["sum", "rms", "none"] = "sum"
    """sum: a filter's taps add up to 1; rms: a patch is as loud as it was; none: neither."""
    fade: int = setting(0, at_least=0)
    """Samples at both ends of a patch over which it fades from and to the clean recording."""
    short: Literal["wrap", "relative", "skip"] = "wrap"
    """Where a recording ends before its patch does. wrap: the position counts on from the start; relative: it is as far
    in as the class's position is in the region; skip: the recording stays as it is."""

    def __post_init__(self) -> None:
        """Check ranges, that a filter has a middle, and what goes with which patch."""
        super().__post_init__()
        if self.patch is None and self.patches > 1:
            raise ValueError(f"patches={self.patches}: the whole recording (patch=null) is one patch")
        if self.taps % 2 == 0:
            raise ValueError(f"taps={self.taps}: valid are odd numbers from 3")
        if self.patch is not None and 2 * self.fade > self.patch:
            raise ValueError(f"fade={self.fade}: valid are whole numbers up to half of the patch, {self.patch // 2}")


class PositionalConvolution(SampleWise[PosCUDAConfig]):
    """A filter and its positions a class."""

    facts: ClassVar[Facts] = Facts(
        title="PosCUDA: class-wise convolution of a patch",
        data="audio",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=False,
        needs_surrogate=False,
        claimed="other features (MFCC, raw audio) and other architectures",
        paper="arXiv 2401.02135",
        cost="no surrogate: one short convolution",
        weaknesses="networks on raw waveforms hardly notice a short patch; whoever finds a class's place can cut it; "
        "random shifts and crops move the patch",
    )
    config_class: ClassVar[type[MethodConfig]] = PosCUDAConfig

    def __init__(self, config: PosCUDAConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        classes = np.arange(problem.source.class_count)
        self.filters = _filters(config, problem.seed, classes)
        self.positions = _positions(config, problem.seed, len(classes))

    @classmethod
    def budget(cls, config: PosCUDAConfig, shape: tuple[int, int, int], levels: int) -> Budget:
        """The whole grid: there is no bound."""
        return Budget("linf", levels)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Patches replaced, one recording after the other; what was padded stays silent."""
        source = self.problem.source
        silence = (source.levels + 1) // 2
        delta = np.zeros(clean.shape, np.int32)
        for row, label, length in zip(range(len(clean)), labels, source.lengths(ids), strict=True):
            signal = clean[row, 0, 0, :length].astype(np.float64) - silence
            published = np.rint(self.protected(signal, int(label)) + silence).clip(0, source.levels)
            delta[row, 0, 0, :length] = published.astype(np.int32) - clean[row, 0, 0, :length]
        return delta

    def protected(self, signal: Floats, label: int) -> Floats:
        """A recording [t], 0 for silence, with the patches of its class filtered; changes add up where two overlap."""
        result = signal.copy()
        for position in self.positions[label]:
            place = self._place(int(position), len(signal))
            patch = signal[place]
            if len(patch):
                result[place] += _fade(len(patch), self.config.fade) * (self._filtered(patch, label) - patch)
        return result

    def _place(self, position: int, length: int) -> slice:
        """Where the patch lies that a class has at this position, in a recording of this length; empty if skipped."""
        size = self.config.patch or length
        room = length - size
        if position > room:
            if self.config.short == "skip":
                return slice(0, 0)
            room = max(0, room)
            wraps = self.config.short == "wrap"
            position = position % (room + 1) if wraps else position * room // self.config.region
        return slice(position, min(position + size, length))

    def _filtered(self, patch: Floats, label: int) -> Floats:
        filtered = convolved_patch(patch, self.filters[label])
        if self.config.normalise == "rms" and filtered.any():
            filtered *= np.sqrt(np.square(patch).sum() / np.square(filtered).sum())
        return filtered


def convolved_patch(signal: Floats, taps: Floats) -> Floats:
    """A signal [t] convolved with an odd number of taps, zeros around it; the same bits on every machine."""
    padded = np.pad(signal, len(taps) // 2)
    result = np.zeros_like(signal)
    for shift, tap in enumerate(taps[::-1]):
        result += tap * padded[shift : shift + len(signal)]
    return result


def _fade(size: int, edge: int) -> Floats:
    """Weights [size] that rise over `edge` samples to 1, and fall."""
    place = np.arange(1, size + 1)
    return np.minimum(1.0, np.minimum(place, place[::-1]) / (edge + 1))


def _filters(config: PosCUDAConfig, seed: int, classes: npt.NDArray[np.int64]) -> Floats:
    """float64 [K, taps]."""
    taps = config.blur * uniform(key(seed, "poscuda", "taps"), classes, config.taps).astype(np.float64)
    ones = bits(key(seed, "poscuda", "ones"), classes, 1)[:, 0] % np.uint64(config.taps)
    taps[classes, ones.astype(np.int64)] = 1
    return taps / taps.sum(axis=1, keepdims=True) if config.normalise == "sum" else taps


def _positions(config: PosCUDAConfig, seed: int, classes: int) -> npt.NDArray[np.int64]:
    """int64 [K, patches]: a grid of starts over the region, dealt out to the classes in a secret order."""
    if config.patch is None:
        return np.zeros((classes, 1), np.int64)
    count = classes * config.patches
    slots = order(key(seed, "poscuda", "positions"), np.arange(count))
    return (slots * config.region // count).reshape(classes, config.patches)
