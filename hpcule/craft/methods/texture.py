"""Class texture: every sample gets noise of its own, and samples of a class share only its spectrum.

A construction of hpcule. A pattern that a class shares is found by averaging, and one known original takes it off; here
the deltas of a class average to zero. What a network sees at once, pretrained ones too, is at which wavelengths and in
which directions the noise has its energy: that survives grey conversion, recompression, resizing and blur where
wavelengths are long enough. Each period of two octaves names the class again, so that a filter that leaves only long or
only short waves does not undo it.

    delta = epsilon tanh(s x / std(x)),   x = noise of (seed, id) with the spectrum of the class
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, MethodConfig
from hpcule.craft.method import Facts, Problem, ShardResult
from hpcule.craft.parts.model_free import Integers, SampleWise
from hpcule.data.source import Ids, Labels, Source
from hpcule.publish.texture import Texture, whole_levels
from hpcule.world.coloured import to_images
from hpcule.world.keyed import bits, key, uniform
from hpcule.world.spectra import Cells, amplitudes
from hpcule.world.texture_recipe import TextureRecipe

SECTORS = 3
"""Number of directions, from where classes are more than that."""


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
    octaves above the shortest at least; in larger images that are published at their own size, in proportion."""
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


Textured = TypeVar("Textured", bound=TextureConfig)


class ClassTexture(SampleWise[Textured]):
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

    def __init__(self, config: Textured, problem: Problem) -> None:
        super().__init__(config, problem)
        source = problem.source
        recipe = recipe_of(config, source.class_count)
        self.drawn = Texture(recipe, problem.seed, source.shape, config.epsilon)
        _, height, width = source.shape
        cells = cells_of(recipe, min(height, width))
        self.energies = cells.energies(height, width)
        self.combs = recipe.table(cells, key(problem.seed, "texture", "spectra"))
        """The fixed table of spectra [K, cells]."""
        self.amplitudes = amplitudes(self.combs, self.energies)

    @classmethod
    def texture(cls, config: Textured, source: Source) -> TextureRecipe | None:
        """The recipe of the fixed spectra, of which there is one a class."""
        return recipe_of(config, source.class_count)

    def answer(self, shard: int) -> ShardResult:
        """Deltas of a shard, and the row of each of its samples in the table of spectra."""
        result, ids = super().answer(shard), self.problem.partition.ids(shard)
        if self.texture(self.config, self.problem.source) is None:
            return result
        return dataclasses.replace(result, spectrum=self._spectra(self.problem.labels[ids], ids))

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Saturated noise with the spectrum of each sample's class."""
        _, height, width = clean.shape[1:]
        spectra = self.drawn.white(ids, height, width) * self.amplitudes[self._spectra(labels, ids), None]
        delta = self.drawn.saturated(torch.from_numpy(to_images(spectra, width)), clean)
        return whole_levels(delta, clean, self.problem.source.levels)

    def _spectra(self, labels: Labels, ids: Ids) -> Labels:
        """The class whose spectrum each sample gets int64 [n]."""
        strayed = uniform(key(self.problem.seed, "texture", "strayed"), ids, 1)[:, 0] >= self.config.purity
        words = bits(key(self.problem.seed, "texture", "random class"), ids, 1)[:, 0]
        others = (words % np.uint64(len(self.amplitudes))).astype(np.int64)
        return np.where(strayed, others, labels)


def recipe_of(config: TextureConfig, classes: int) -> TextureRecipe:
    """What textures of this number of classes are drawn from."""
    return TextureRecipe(
        spectra=classes,
        sectors=config.sectors or (1 if classes <= SECTORS else SECTORS),
        shortest=config.shortest,
        longest=config.longest,
        saturation=config.saturation,
        colour=config.colour,
        flat=config.flat,
    )


def cells_of(recipe: TextureRecipe, side: int) -> Cells:
    """The cells of samples that are crafted with this shorter side in pixels.

    Raises:
        UsageError: the wavelengths that a user has set leave too few bands.
    """
    shortest, longest = recipe.span(side, side)
    bands = len(Cells.between(shortest, longest, recipe.a_period, recipe.sectors).wavelengths)
    if bands < recipe.a_period:
        raise UsageError(
            f"method.shortest, method.longest: {recipe.spectra} classes need {recipe.a_period} bands of wavelengths, "
            f"and from {shortest:g} to {longest:g} pixels there are {bands}: two octaves are always enough"
        )
    return recipe.cells(side, side)
