"""Class texture: every sample gets noise of its own, and samples of a class share only its spectrum.

A construction of hpcule. A pattern that a class shares is found by averaging, and one known original takes it off; here
the deltas of a class average to zero. What a network sees at once, pretrained ones too, is at which wavelengths and in
which directions the noise has its energy: that survives grey conversion, recompression, resizing and blur where
wavelengths are long enough. Each period of two octaves names the class again, so that a filter that leaves only long or
only short waves does not undo it.

    delta = epsilon tanh(s x / std(x)),   x = noise of (seed, id) with the spectrum of the class
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, MethodConfig
from hpcule.craft.method import Facts, Problem
from hpcule.craft.parts.contrast import local_contrast
from hpcule.craft.parts.levels import to_levels
from hpcule.craft.parts.model_free import Integers, SampleWise
from hpcule.craft.parts.spectra import Cells, amplitudes, dealt
from hpcule.data.source import Ids, Labels
from hpcule.world.coloured import Images, Spectra, to_images, white_spectra
from hpcule.world.keyed import bits, key, uniform

MOST_CELLS = 12
"""Number of cells of a period that classes are dealt to, at most."""
SECTORS = 3
"""Number of sectors from where a period has more cells than that."""


@dataclass(frozen=True, kw_only=True)
class TextureConfig(BoundedConfig):
    """Defaults are ours: nobody has published this method."""

    name: str = "texture"
    epsilon: float = setting(16.0, at_least=1, at_most=32767)
    """Budget in levels of the sample's own grid: 16 means 16/255 for 8-bit images."""
    shortest: float | None = setting(None, at_least=2)
    """Shortest wavelength in pixels. None: 5, or an eighth of the shorter side of the samples where that is less."""
    longest: float | None = setting(None, at_least=2)
    """Longest wavelength in pixels. None: 80, or half the shorter side of the samples where that is less, but two
    octaves above the shortest at least."""
    sectors: int | None = setting(None, at_least=1, at_most=6)
    """Directions, horizontal to vertical, that divide each band of wavelengths. None: 1 up to 3 classes, else 3."""
    saturation: float = setting(2.5, above=0)
    """Standard deviations of the noise, in budgets, before tanh bounds it: more is stronger, and less pure."""
    colour: bool = False
    """Noise of its own for each channel; otherwise the same in all, which grey conversion leaves as it is."""
    flat: float = setting(1.0, at_least=0, at_most=1)
    """Share of the budget where an image is flat. It rises with local contrast, to all of it where the standard
    deviation of brightness around a pixel reaches the budget; 1 is the whole budget everywhere."""
    purity: float = setting(1.0, at_least=0, at_most=1)
    """Share of samples with the spectrum of their class; the others have that of a random class."""


Texture = TypeVar("Texture", bound=TextureConfig)


class ClassTexture(SampleWise[Texture]):
    """A spectrum a class, noise a sample."""

    facts: ClassVar[Facts] = Facts(
        title="Class texture",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="nothing: it is our own",
        paper="hpcule",
        cost="no surrogate: one Fourier transform a sample",
        weaknesses="visible on flat parts of an image at its default budget; weak on small images, which hold few "
        "wavelengths; filters that remove all of its bands take it off, and much of the image",
    )
    config_class: ClassVar[type[MethodConfig]] = TextureConfig

    def __init__(self, config: Texture, problem: Problem) -> None:
        super().__init__(config, problem)
        _, height, width = problem.source.shape
        cells, a_period = cells_of(config, problem.source.class_count, min(height, width))
        purpose = key(problem.seed, "texture", "spectra")
        self.energies = cells.energies(height, width)
        self.combs = dealt(problem.source.class_count, cells, a_period, purpose)
        """The fixed table of spectra [K, cells]."""
        self.amplitudes = amplitudes(self.combs, self.energies)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Saturated noise with the spectrum of each sample's class."""
        source = self.problem.source
        spectra = self.white(ids) * self.amplitudes[self._spectra(labels, ids), None]
        delta = self.saturated(torch.from_numpy(to_images(spectra, source.shape[2])), clean)
        return to_levels(delta.expand(clean.shape), torch.from_numpy(clean), source.levels, self.config.epsilon)

    def white(self, ids: Ids) -> Spectra:
        """The half spectra of each sample's white noise [n, 1 or C, H, W // 2 + 1]."""
        channels, height, width = self.problem.source.shape
        shape = (channels if self.config.colour else 1, height, width)
        return white_spectra(key(self.problem.seed, "texture", "noise"), ids, shape)

    def saturated(self, noise: Tensor, clean: Integers) -> Tensor:
        """Noise [n, 1 or C, H, W] of any strength at the budget of clean samples, in units of [0, 1]; differentiable in
        the noise."""
        deviation = noise.square().mean((1, 2, 3), keepdim=True).sqrt()
        budget = int(self.config.epsilon) / self.problem.source.levels
        delta = (noise / deviation).mul_(self.config.saturation).tanh_() * budget
        if self.config.flat < 1:
            delta = delta * torch.from_numpy(self._budget_map(clean)).to(delta.device)
        return delta

    def _budget_map(self, clean: Integers) -> Images:
        """Share of the budget at each pixel [n, 1, H, W]."""
        flat, full = self.config.flat, self.config.epsilon
        shares: Images = (flat + (1 - flat) * np.minimum(local_contrast(clean) / full, 1)).astype(np.float32)
        return shares

    def _spectra(self, labels: Labels, ids: Ids) -> Labels:
        """The class whose spectrum each sample gets int64 [n]."""
        strayed = uniform(key(self.problem.seed, "texture", "strayed"), ids, 1)[:, 0] >= self.config.purity
        words = bits(key(self.problem.seed, "texture", "random class"), ids, 1)[:, 0]
        others = (words % np.uint64(len(self.amplitudes))).astype(np.int64)
        return np.where(strayed, others, labels)


def cells_of(config: TextureConfig, classes: int, side: int) -> tuple[Cells, int]:
    """The cells for samples with this shorter side in pixels, and the number of bands of a period."""
    sectors = config.sectors or (1 if classes <= SECTORS else SECTORS)
    a_period = max(1, math.ceil(min(classes, MOST_CELLS) / sectors))
    shortest = config.shortest or max(2.0, min(5.0, side / 8))
    longest = config.longest or min(80.0, max(side / 2, 4 * shortest))
    cells = Cells.between(shortest, max(shortest, longest), a_period, sectors)
    if len(cells.wavelengths) < a_period:
        raise UsageError(
            f"method.shortest, method.longest: {classes} classes need {a_period} bands of wavelengths, and from "
            f"{shortest:g} to {longest:g} pixels there are {len(cells.wavelengths)}: two octaves are always enough"
        )
    return cells, a_period
