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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, LocalConfig, MethodConfig, TaskConfig
from hpcule.craft.method import Event, Facts, Problem, ShardResult, Step
from hpcule.craft.parts.band_energies import BandEnergies
from hpcule.craft.parts.encoded import Encoded, EncoderConfig
from hpcule.craft.parts.kmeans import kmeans
from hpcule.craft.parts.model_free import TILE, Integers, SampleWise
from hpcule.data.source import Ids, Labels, Source
from hpcule.nets.encoder import load_encoder
from hpcule.publish.texture import Texture, whole_levels
from hpcule.world.coloured import Images, to_images
from hpcule.world.keyed import bits, key, uniform
from hpcule.world.spectra import Cells, amplitudes
from hpcule.world.texture_recipe import TextureRecipe

SECTORS = 3
"""Number of directions, from where classes are more than that."""

CACHED = 1 << 17
"""Pixels that are drawn at a time: what is made of them on the way stays in a core's cache."""


@dataclass(frozen=True, kw_only=True)
class SpectraConfig(BoundedConfig, LocalConfig):
    """What textures of fixed and of learned spectra have in common."""

    epsilon: float = setting(16.0, at_least=1, at_most=32767)
    """Budget in levels of the sample's own grid: 16 means 16/255 for 8-bit images."""
    shortest: float | None = setting(None, at_least=2)
    """Shortest wavelength in pixels. None: 12 (texture) or 5 (texture-learned), or an eighth of the shorter side of the
    samples where that is less."""
    longest: float | None = setting(None, at_least=2)
    """Longest wavelength in pixels. None: two octaves above the shortest, in larger images that are published at their
    own size in proportion (texture); 80, or half the shorter side of the samples where that is less, but two octaves
    above the shortest at least (texture-learned)."""
    sectors: int | None = setting(None, at_least=1, at_most=6)
    """Directions, horizontal to vertical, that divide each band of wavelengths. None: 1 up to 3 classes, else 3."""
    saturation: float = setting(2.5, above=0)
    """Standard deviations of the noise, in budgets, before tanh bounds it: more is stronger, and less pure."""
    colour: bool = False
    """Noise of its own for each channel; otherwise the same in all, which grey conversion leaves as it is."""
    purity: float = setting(1.0, at_least=0, at_most=1)
    """Share of samples with the spectrum of their class; the others have that of a random class."""
    clusters: int | None = setting(None, at_least=2)
    """Number of clusters that take the place of classes, so that no labels are needed. None: classes."""


@dataclass(frozen=True, kw_only=True)
class TextureConfig(SpectraConfig, TaskConfig):
    """Defaults are ours: nobody has published this method."""

    name: str = "texture"
    encoder: str | None = None
    """Name of a frozen network, as for `uc`, by whose features samples are clustered. None: by their band energies,
    without a network."""
    checkpoint: str | None = None
    """State dict for the encoder, every key of which must match; None: the published weights."""
    encoder_size: int = setting(224, at_least=32)
    """Samples are resized to this height and width in front of the encoder."""

    def __post_init__(self) -> None:
        """Check ranges, and that an encoder has something to do."""
        super().__post_init__()
        if self.encoder is not None and self.clusters is None:
            raise ValueError(f"encoder={self.encoder}: it finds clusters: set clusters as well, or leave it out")
        if self.clusters is not None and not self.task.one_label:
            raise ValueError(
                f"clusters={self.clusters}: they take the place of classes: leave task={self.task.written()} out"
            )
        if self.checkpoint is not None and self.encoder is None:
            raise ValueError(f"checkpoint={self.checkpoint}: it is that of an encoder: name the encoder as well")


Textured = TypeVar("Textured", bound=SpectraConfig)


class SpectraTexture(SampleWise[Textured]):
    """A spectrum a class or a cluster, noise a sample."""

    def __init__(self, config: Textured, problem: Problem) -> None:
        super().__init__(config, problem)
        source = problem.source
        _, height, width = source.shape
        side = min(height // (source.depth or 1), width)
        recipe = self.recipe(config, config.clusters or self.class_count, side)
        self.assignment: Mapping[int, Labels] = {}
        """Cluster of each sample, by own shard, where clusters take the place of classes."""
        self.drawn = Texture(recipe, problem.seed, source.shape, config.epsilon)
        cells = cells_of(recipe, side)
        self.energies = cells.energies(height, width)
        self.combs = recipe.table(cells, key(problem.seed, "texture", "spectra"))
        """The fixed table of spectra [K, cells]."""
        self.amplitudes = amplitudes(self.combs, self.energies)

    @classmethod
    def recipe(cls, config: Textured, spectra: int, side: int) -> TextureRecipe:
        """What this number of spectra is drawn from; of samples with this shorter side in pixels."""
        return recipe_of(config, spectra)

    @classmethod
    def needs_labels(cls, config: Textured) -> bool:
        """Whether classes have spectra, and not clusters."""
        return config.clusters is None

    def features(self, shard: int) -> npt.NDArray[np.float64]:
        """What the samples of a shard are clustered by, float64 [n, D]."""
        bands, ids = BandEnergies(self.problem.source.shape), self.problem.partition.ids(shard)
        tiles = [ids[tile] for tile in self.problem.tiles(ids, TILE)]
        return np.concatenate([bands.features(self.clean(shard, tile)) for tile in tiles])

    def prepare(self) -> Iterator[Event]:
        """Find the clusters, where there are any, all ranks together; after an interruption again."""
        if self.config.clusters is None:
            return
        owned, rounds = self.problem.owned, self.problem.rounds
        found = {}
        for turn in range(rounds):
            if turn < len(owned):
                found[owned[turn]] = self.features(owned[turn])
            yield Step("features", turn + 1, rounds)
        first_ids = {shard: self.problem.partition.range(shard)[0] for shard in found}
        purpose = key(self.problem.seed, "texture", "clusters")
        self.assignment = kmeans(found, first_ids, self.config.clusters, self.problem.world, purpose).assignment
        yield Step("clusters", 1, 1)

    def classes(self, shard: int, ids: Ids) -> Labels:
        """The classes, or clusters, of a shard's samples."""
        if self.config.clusters is None:
            return super().classes(shard, ids)
        return self.assignment[shard][ids - self.problem.partition.range(shard)[0]]

    @property
    def rows(self) -> int:
        """Number of samples that stay in a core's cache while they are perturbed."""
        return tile_of(self.problem.source.shape)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Saturated noise with the spectrum of each sample's class."""
        source = self.problem.source
        spectra = self.drawn.white(ids, *source.shape[1:])
        for one, row in zip(spectra.view(np.float32), self._spectra(labels, ids).tolist(), strict=True):
            one *= self._doubled[row]
        delta = self.drawn.saturated(torch.from_numpy(to_images(spectra, source.shape[2])), clean)
        budget = self.budget(self.config, source.shape, source.levels)
        return whole_levels(delta, clean, source.levels).astype(budget.dtype(source.levels))

    @cached_property
    def _doubled(self) -> Images:
        """The amplitude of each part, real and imaginary, of each frequency [K, H, 2 (W // 2 + 1)]."""
        return np.repeat(self.amplitudes, 2, axis=2)

    def _spectra(self, labels: Labels, ids: Ids) -> Labels:
        """The class whose spectrum each sample gets int64 [n]."""
        strayed = uniform(key(self.problem.seed, "texture", "strayed"), ids, 1)[:, 0] >= self.config.purity
        words = bits(key(self.problem.seed, "texture", "random class"), ids, 1)[:, 0]
        others = (words % np.uint64(len(self.amplitudes))).astype(np.int64)
        return np.where(strayed, others, labels)


class ClassTexture(SpectraTexture[TextureConfig]):
    """The texture of fixed spectra, which can be drawn at any size."""

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

    def __init__(self, config: TextureConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.encoded = None
        if config.encoder is not None:
            self.encoded = encoded(config.encoder, config.checkpoint, config.encoder_size, problem)

    @classmethod
    def takes_volumes(cls, config: TextureConfig) -> bool:
        """Whether these settings can craft for volumes: unless an encoder of images clusters them."""
        return config.encoder is None

    @classmethod
    def texture(cls, config: TextureConfig, source: Source) -> TextureRecipe | None:
        """The recipe of the spectra, from which they are drawn at any size; None where a sample has several."""
        return recipe_of(config, config.clusters or source.class_count) if config.task.one_label else None

    def features(self, shard: int) -> npt.NDArray[np.float64]:
        """What an encoder sees, or band energies."""
        if self.encoded is None:
            return super().features(shard)
        features: npt.NDArray[np.float64] = self.encoded.features(shard)
        return features

    def answer(self, shard: int) -> ShardResult:
        """Deltas of a shard, and the row of each of its samples in the table of spectra."""
        if not self.problem.crafted_for.one_label:
            return super().answer(shard)
        ids = self.problem.partition.ids(shard)
        return dataclasses.replace(super().answer(shard), spectrum=self._spectra(self.classes(shard, ids), ids))


def tile_of(shape: tuple[int, int, int]) -> int:
    """Samples of a shape that are perturbed at a time."""
    return max(1, CACHED // (shape[1] * shape[2]))


def recipe_of(config: SpectraConfig, spectra: int) -> TextureRecipe:
    """What textures of this number of classes, or of clusters, are drawn from."""
    return TextureRecipe(
        spectra=spectra,
        sectors=config.sectors or (1 if spectra <= SECTORS else SECTORS),
        shortest=config.shortest,
        longest=config.longest,
        saturation=config.saturation,
        colour=config.colour,
        flat=config.flat,
    )


def encoded(name: str, checkpoint: str | None, size: int, problem: Problem) -> Encoded:
    """The samples of a problem, seen through a frozen encoder."""
    encoder = load_encoder(name, Path(checkpoint) if checkpoint else None, input_size=size)
    config = EncoderConfig(name="texture", encoder=name, checkpoint=checkpoint, encoder_size=size)
    return Encoded(config, problem, encoder)


def cells_of(recipe: TextureRecipe, side: int) -> Cells:
    """The cells of samples that are crafted with this shorter side in pixels.

    Raises:
        UsageError: the wavelengths that a user has set leave too few bands.
    """
    shortest, longest = recipe.span(side, side)
    bands = len(Cells.between(shortest, longest, recipe.a_period, recipe.sectors).wavelengths)
    if bands < recipe.a_period:
        raise UsageError(
            f"method.shortest, method.longest: {recipe.spectra} spectra need {recipe.a_period} bands of wavelengths, "
            f"and from {shortest:g} to {longest:g} pixels there are {bands}: two octaves are always enough"
        )
    return recipe.cells(side, side)
