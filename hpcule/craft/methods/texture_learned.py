"""Class texture with learned spectra: what frozen encoders read above the content, after an attacker's steps.

A construction of hpcule. The spectra of class texture are fixed; here combs over more octaves are the start of a table
that all ranks train together, see `SpectraLearner`. The noise, its key and its budget are those of class texture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Saved, Settings, State, Step
from hpcule.craft.methods.texture import (
    ClassTexture,
    SpectraConfig,
    SpectraTexture,
    cells_of,
    encoded,
    recipe_of,
    tile_of,
)
from hpcule.craft.parts.encoded import Encoded
from hpcule.craft.parts.spectra_learner import SpectraLearner
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.data.schedule import LINE_BYTES, Ghost, Schedule, samples_of
from hpcule.nets.encoder import load_encoder
from hpcule.world.spectra import amplitudes
from hpcule.world.texture_recipe import TextureRecipe

FEATURES = 1280
"""Number of features of the default encoder; others have 512 to 2048."""
LEAST_ENERGY = 1e-20
"""Energies below have no gradient: that of their square root is infinite at 0."""


@dataclass(frozen=True, kw_only=True)
class LearnedTextureConfig(SpectraConfig):
    """Defaults are ours: nobody has published this method."""

    name: str = "texture-learned"
    encoders: tuple[str, ...] = ("efficientnet-lite0",)
    """Names of the frozen networks, as for `uc`; each weighs the same."""
    encoder_weights: tuple[str | None, ...] = ()
    """State dict for each encoder, in their order, every key of which must match; None: its published weights. An empty
    list: the published weights of all."""
    encoder_size: int = setting(224, at_least=32)
    """Samples are resized to this height and width in front of the encoders, delta stays at the samples' own size."""
    steps: int = setting(300, at_least=0)
    """Steps in which the spectra are learnt. 0 leaves them as they start (a control): combs like those of class
    texture, but for a tenth of the energy, which lies evenly in all cells."""
    batch: int = setting(64, at_least=1)
    """Samples of such a step, over all workers."""
    ghost: int = setting(4, at_least=1)
    """Samples that go through the encoders together."""
    learning_rate: float = setting(0.02, above=0)
    """Learning rate of Adam for spectra and heads, cosine to 0."""

    def __post_init__(self) -> None:
        """Check ranges, and that encoders and their weights match."""
        super().__post_init__()
        if not self.encoders:
            raise ValueError("encoders=[]: name at least one, for example [efficientnet-lite0]")
        if len(self.encoder_weights) not in (0, len(self.encoders)):
            raise ValueError(
                f"encoder_weights={[*self.encoder_weights]}: name one for each of the {len(self.encoders)} encoders, "
                "null for published weights"
            )


class LearnedTexture(SpectraTexture[LearnedTextureConfig]):
    """A learnt spectrum a class, noise a sample."""

    facts: ClassVar[Facts] = dataclasses.replace(
        ClassTexture.facts,
        title="Class texture, learned spectra",
        needs_surrogate=True,
        needs_checkpoint=True,
        cost="300 steps of 64 samples through the encoders, in all; one Fourier transform a sample",
    )
    config_class: ClassVar[type[MethodConfig]] = LearnedTextureConfig
    loss: ClassVar[str | None] = "cross_entropy"
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"encoder_size": 128, "steps": 100, "batch": 32},
        "smoke": {"encoder_size": 64, "steps": 8, "batch": 32},
    }

    def __init__(self, config: LearnedTextureConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        files = [Path(file) if file else None for file in config.encoder_weights or [None] * len(config.encoders)]
        encoders = [
            load_encoder(name, file, input_size=config.encoder_size)
            for name, file in zip(config.encoders, files, strict=True)
        ]
        rate = config.learning_rate
        self.learner = SpectraLearner(self.combs, encoders, self.textured, problem, learning_rate=rate)
        self.step = 0
        self.encoded: Encoded | None = None

    @classmethod
    def recipe(cls, config: LearnedTextureConfig, spectra: int, side: int) -> TextureRecipe:
        """What the spectra are drawn from: more octaves than those of class texture, for learning to choose from."""
        shortest = config.shortest or max(2.0, min(5.0, side / 8))
        longest = config.longest or max(min(80.0, side / 2), 4 * shortest)
        return recipe_of(dataclasses.replace(config, shortest=shortest, longest=longest), spectra)

    @classmethod
    def seed_is_secret(cls) -> bool:
        """Anybody who knows the seed can make the noise of every sample."""
        return True

    @classmethod
    def untrained(cls, config: LearnedTextureConfig) -> LearnedTextureConfig:
        """The spectra as they start; what learning is set to goes back to the defaults, for it has no meaning."""
        learning = ("batch", "ghost", "learning_rate")
        defaults = {name: getattr(LearnedTextureConfig(), name) for name in learning}
        return dataclasses.replace(config, **defaults, steps=0)

    def features(self, shard: int) -> npt.NDArray[np.float64]:
        """What the first encoder sees."""
        if self.encoded is None:
            config = self.config
            checkpoint = config.encoder_weights[0] if config.encoder_weights else None
            self.encoded = encoded(config.encoders[0], checkpoint, config.encoder_size, self.problem)
        found: npt.NDArray[np.float64] = self.encoded.features(shard)
        return found

    @classmethod
    def work(cls, config: LearnedTextureConfig, extent: Extent) -> Work | None:
        """Steps with a sum each; then noise, each rank by itself; what clusters take is not counted."""
        if config.clusters is not None:
            return None
        walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
        side = min(extent.shape[1:])
        cells = cells_of(cls.recipe(config, config.clusters or extent.classes, side), side)
        encoders, workers = len(config.encoders), extent.workers
        numbers = extent.classes * (cells.count + FEATURES * encoders)
        spectra = Phase(
            stage="spectra",
            marks=config.steps,
            passes=encoders * config.steps * walk.busiest(workers) / walk.batches,
            calls=config.steps,
            # The gradient, and the loss with the heads' accuracies, float64.
            sums=2 * config.steps if workers > 1 else 0,
            sum_bytes=(extent.addend * numbers + 8 * (1 + encoders)) / 2,
            ranks=workers,
            busy=min(workers, walk.ghosts_a_batch),
        )
        noise = Phase(
            stage="noise",
            marks=extent.own_shards,
            passes=extent.own_samples,
            calls=extent.tiles(tile_of(extent.shape)),
            busy=workers,
        )
        # Two epochs' orders of own ids, and where all ghosts lie.
        memory = 16.0 * extent.own_samples + LINE_BYTES * extent.samples / config.ghost
        return Work(phases=(spectra, noise), memory=memory, checkpoint=3.0 * 4 * numbers)

    @classmethod
    def trial(cls, config: LearnedTextureConfig, batch: int, workers: int) -> LearnedTextureConfig:
        """Three steps, and the noise."""
        return dataclasses.replace(cls.untrained(config), steps=3, batch=batch, ghost=config.ghost)

    def prepare(self) -> Iterator[Event]:
        """Learn the spectra, all ranks together."""
        yield from super().prepare()
        partition, config = self.problem.partition, self.config
        schedule = Schedule(partition, config.ghost, config.batch, self.problem.seed, "texture spectra")
        while self.step < config.steps:
            batch = schedule.at(self.step)
            self.problem.expect(schedule.at(self.step + 1))
            figures = self.learner.train(batch, self.step // schedule.steps, self.step / config.steps)
            self.step += 1
            figures["step"] = self.step - 1
            yield Step("spectra", self.step, config.steps, figures, batches=[samples_of(batch)])
        self.amplitudes = amplitudes(self.learner.table(), self.energies)

    def textured(self, ghost: Ghost, spectra: Tensor) -> Tensor:
        """Samples of a ghost with noise of a spectrum each [n, cells], in [0, 1]: what is published, but for rounding;
        differentiable in the spectra."""
        samples = self.problem.reader.take(ghost.shard, ghost.ids)
        _, height, width = samples.shape[1:]
        white = torch.from_numpy(self.drawn.white(ghost.ids, height, width)).to(spectra.device)
        energies = torch.tensordot(spectra, torch.from_numpy(self.energies).to(spectra.device), 1)
        noise = torch.fft.irfft2(white * energies.clamp_min(LEAST_ENERGY).sqrt()[:, None], (height, width))
        delta = self.drawn.saturated(noise, samples.cpu().numpy()) / self.problem.source.levels
        return (self.problem.unit_interval(samples) + delta).clamp(0, 1)

    def state(self) -> State:
        """The learner; finished shards are in the store."""
        return State({"step": self.step, "learner": self.learner.state()})

    def restore(self, saved: Saved) -> None:
        """Restore the learner."""
        shared = saved.load("shared")
        self.step = shared["step"]
        self.learner.restore(shared["learner"])
