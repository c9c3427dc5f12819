"""EM and OPS together (the CIFAR-10-S of Wu, Chen, Xie, Huang; ICLR 2023, arXiv 2205.12141).

EM's noise is undone by adversarial training, and the one pixel of OPS by a median filter or a cutout: a sample that
has both has to be freed from both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Settings, ShardResult
from hpcule.craft.methods.em import ErrorMinimizing
from hpcule.craft.methods.ops import OnePixelShortcut, OPSConfig
from hpcule.craft.parts.settings import AugmentConfig, RoundsConfig
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.store.budget import Budget


@dataclass(frozen=True, kw_only=True)
class EMOPSConfig(RoundsConfig, AugmentConfig):
    """Defaults are those of both methods."""

    removed: ClassVar[tuple[str, ...]] = ("unit", "subset")
    name: str = "em-ops"
    pixels: int = setting(1, at_least=1)
    """Pixels of each sample that may change by any amount, in addition to the budget of all others."""


class ErrorMinimizingShortcut(TwoPhase[EMOPSConfig]):
    """EM's deltas, with the classes' pixels of OPS set after the last round."""

    facts: ClassVar[Facts] = dataclasses.replace(
        ErrorMinimizing.facts,
        title="EM+OPS: error-minimising noise and a one-pixel shortcut",
        claimed="adversarial training, crops, flips",
        paper="arXiv 2205.12141",
        cost="20 noise passes and about 0.1 training passes a round, about 10 rounds; one look at every place a class",
        weaknesses="the pixel is seen by eye, and found by comparing pixels within a class; undone by what undoes both",
    )
    config_class: ClassVar[type[MethodConfig]] = EMOPSConfig
    presets: ClassVar[Mapping[str, Settings]] = ErrorMinimizing.presets

    def __init__(self, config: EMOPSConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.shortcut = OnePixelShortcut(OPSConfig(pixels=config.pixels), problem)

    @classmethod
    def budget(cls, config: EMOPSConfig, shape: tuple[int, int, int], levels: int) -> Budget:
        """EM's budget, from which the pixels are exempt."""
        return dataclasses.replace(super().budget(config, shape, levels), free_pixels=config.pixels)

    def run(self) -> Iterator[Event]:
        """Choose the pixels from the clean samples, which a resumed run does again; then EM."""
        yield from self.shortcut.prepare()
        for event in super().run():
            if isinstance(event, ShardResult):
                yield self._with_pixels(event)
            else:
                yield event

    def _with_pixels(self, found: ShardResult) -> ShardResult:
        assert found.delta is not None
        ids = self.problem.partition.ids(found.shard)
        delta = found.delta.astype("int32")
        self.shortcut.set_pixels(delta, self.shortcut.clean(found.shard, ids), self.problem.classes(ids))
        return ShardResult(found.shard, delta=delta)
