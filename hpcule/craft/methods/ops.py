"""OPS: one-pixel shortcut (Wu, Chen, Xie, Huang; ICLR 2023, arXiv 2205.12141).

All samples of a class get one pixel of one colour, a corner of the colour cube: where the class is far from it on
average and varies least. With a = |v - x| over the samples of the class and the channels, the score of a place and a
colour v is mean(a) / std(a); no two classes get the same pair.

Sums of x and of its square give the mean and deviation of all eight colours, in whole numbers: so every number of
ranks finds the same pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Step
from hpcule.craft.parts.model_free import Floats, Integers, SampleWise
from hpcule.data.source import Ids, Labels
from hpcule.store.budget import Budget


@dataclass(frozen=True, kw_only=True)
class OPSConfig(MethodConfig):
    """The authors' sparsity is 1."""

    name: str = "ops"
    pixels: int = setting(1, at_least=1)
    """Pixels of each sample that are changed, each at a place of its own: the budget (L0)."""


class Pixel(NamedTuple):
    """A place and what its channels are set to [C], in levels."""

    row: int
    column: int
    colour: Integers


class OnePixelShortcut(SampleWise[OPSConfig]):
    """A pixel a class."""

    facts: ClassVar[Facts] = Facts(
        title="OPS: one-pixel shortcut",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="adversarial training, grayscale",
        paper="arXiv 2205.12141",
        cost="no surrogate: one pass over the samples, and one look at every place a class",
        weaknesses="seen by eye, and found by comparing pixels within a class; "
        "undone by cutout, CutMix, JPEG, median filters and projection",
    )
    config_class: ClassVar[type[MethodConfig]] = OPSConfig

    def __init__(self, config: OPSConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        channels, height, width = problem.source.shape
        pairs = 2**channels * height * width
        if config.pixels * problem.source.class_count > pairs or config.pixels > height * width:
            raise UsageError(
                f"method.pixels={config.pixels}: {pairs} pairs of a place and a colour are too few for "
                f"{problem.source.class_count} classes"
            )
        self.pixels: list[list[Pixel]] = []
        """Chosen pixels of each class."""

    @classmethod
    def budget(cls, config: OPSConfig, shape: tuple[int, int, int], levels: int) -> Budget:
        """The budget in L0: a number of pixels."""
        return Budget("l0", config.pixels)

    def prepare(self) -> Iterator[Event]:
        """Sum up all classes, all ranks together, and choose their pixels."""
        source, problem = self.problem.source, self.problem
        values = int(np.prod(source.shape))
        # A class's count, and its sums of values and of squares.
        sums = np.zeros((source.class_count, 1 + 2 * values), np.int64)
        for turn in range(problem.rounds):
            if turn < len(problem.owned):
                shard = problem.owned[turn]
                self._sum_up(sums, shard)
            yield Step("search", turn + 1, problem.rounds)
        total = problem.world.add(torch.from_numpy(sums).to(problem.world.device)).cpu().numpy()
        used: set[tuple[int, ...]] = set()
        self.pixels = [self._choose(row, used) for row in total]

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """The class's colour in place of what was there."""
        delta = np.zeros(clean.shape, np.int32)
        self.set_pixels(delta, clean, labels)
        return delta

    def set_pixels(self, delta: Integers, clean: Integers, labels: Labels) -> None:
        """Give the classes' pixels their colour, whatever these deltas [n, C, H, W], in levels, were there."""
        for label in np.unique(labels):
            mine = labels == label
            for row, column, colour in self.pixels[label]:
                delta[mine, :, row, column] = colour - clean[mine, :, row, column].astype(np.int32)

    def _sum_up(self, sums: Integers, shard: int) -> None:
        ids = self.problem.partition.ids(shard)
        clean = self.clean(shard, ids).reshape(len(ids), -1).astype(np.int64)
        labels = self.problem.classes(ids)
        values = clean.shape[1]
        for label in np.unique(labels):
            own = clean[labels == label]
            sums[label, 0] += len(own)
            sums[label, 1 : values + 1] += own.sum(axis=0)
            sums[label, values + 1 :] += np.square(own).sum(axis=0)

    def _choose(self, sums: Integers, used: set[tuple[int, ...]]) -> list[Pixel]:
        """The best pairs of one class that no class has yet, each at a place of its own."""
        channels, height, width = self.problem.source.shape
        if not sums[0]:
            return []
        first, second = (sums[1:] / sums[0]).reshape(2, channels, height, width)
        corners = list(itertools.product((0, self.problem.source.levels), repeat=channels))
        scores = np.stack([_score(first, second, np.array(corner)) for corner in corners])
        chosen: list[Pixel] = []
        for flat in np.argsort(-scores, axis=None, kind="stable"):
            number, row, column = (int(part) for part in np.unravel_index(flat, scores.shape))
            taken = any((row, column) == pixel[:2] for pixel in chosen)
            if not taken and (number, row, column) not in used:
                used.add((number, row, column))
                chosen.append(Pixel(row, column, np.array(corners[number])))
            if len(chosen) == self.config.pixels:
                break
        return chosen


def _score(first: Floats, second: Floats, corner: Integers) -> Floats:
    """mean / std of |corner - x| over samples and channels [H, W], from the means of x and x^2 [C, H, W]."""
    colour = corner[:, None, None].astype(np.float64)
    # A corner is the largest or the smallest level, so that |corner - x| is corner - x or x throughout.
    mean = np.abs(colour - first).mean(axis=0)
    square = (colour**2 - 2 * colour * first + second).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score: Floats = mean / np.sqrt(np.maximum(square - mean**2, 0))
    return np.nan_to_num(score, nan=0.0, posinf=np.finfo(np.float64).max)
