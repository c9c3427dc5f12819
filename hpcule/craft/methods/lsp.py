"""LSP: linearly separable synthetic perturbations (Yu, Zhang, Chen, Yin, Liu; KDD 2022, arXiv 2111.00898).

Each class is a cloud of points around a corner of a hypercube; each sample gets a point of its class, drawn as a coarse
mosaic over the image. So the deltas alone tell the classes apart, by hyperplanes.

    point = corner_y + A_y n,   n ~ N(0, 1)^d,   A_y uniform in [-1, 1]^(d x d),   corner_y in {-10, 10}^d
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import LengthConfig, MethodConfig, TaskConfig
from hpcule.craft.method import Facts, Problem
from hpcule.craft.parts.model_free import Floats, Integers, OfOneLength
from hpcule.data.source import Ids, Labels
from hpcule.world.keyed import bits, key, normal, uniform

SEPARATION = 10.0
"""Half an edge of the hypercube, in standard deviations of n."""

MOST_VALUES = 2**28
"""Largest number of values of all classes' matrices together: 2 GiB."""


@dataclass(frozen=True, kw_only=True)
class LSPConfig(LengthConfig, TaskConfig):
    """Defaults are the authors' for 32 x 32; they take cells of 32 pixels at 224 x 224."""

    name: str = "lsp"
    cell: int = setting(8, at_least=1)
    """Pixels along the side of a cell of the mosaic; the authors take 32 at 224 x 224."""


class LSP(OfOneLength[LSPConfig]):
    """Points of a class as mosaics."""

    facts: ClassVar[Facts] = Facts(
        title="LSP: linearly separable perturbations",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="other architectures",
        paper="arXiv 2111.00898",
        cost="no surrogate: one product of a point with a small matrix a sample",
        weaknesses="weak at high resolution; single values move by up to three times the root mean square; "
        "undone by grayscale, JPEG, strong augmentation and projection",
    )
    config_class: ClassVar[type[MethodConfig]] = LSPConfig
    root_mean_square = 6.0
    """A length of 332.6 at 32 x 32 x 3."""

    @classmethod
    def takes_volumes(cls, config: LSPConfig) -> bool:
        """Whether these settings can craft for volumes: always."""
        return True

    def __init__(self, config: LSPConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        channels, height, width = problem.source.shape
        self.grid = (-(-height // config.cell), -(-width // config.cell), channels)
        self.corners = SEPARATION * self._corners(math.prod(self.grid))
        self.spreads = self._spreads(math.prod(self.grid))

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """A mosaic of each sample's point, of the budget's length."""
        rows, columns, channels = self.grid
        noise = normal(key(self.problem.seed, "lsp", "points"), ids, math.prod(self.grid))
        points = self.corners[labels]
        for label in np.unique(labels):
            points[labels == label] += noise[labels == label] @ self.spreads[label].T
        stones = points.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
        mosaic = stones.repeat(self.config.cell, axis=2).repeat(self.config.cell, axis=3)
        _, height, width = self.problem.source.shape
        return self.published_change(mosaic[:, :, :height, :width], clean)

    def _corners(self, dimension: int) -> Floats:
        """A corner {-1, 1}^d for each class, all different [K, d]."""
        classes = self.class_count
        if classes * dimension**2 > MOST_VALUES:
            raise UsageError(
                f"method.cell={self.config.cell}: {classes} matrices of {dimension} x {dimension} values are too many: "
                "take larger cells"
            )
        if dimension < 63 and classes > 2**dimension:
            raise UsageError(
                f"method.cell={self.config.cell}: {dimension} cells and channels have {2**dimension} corners, "
                f"too few for {classes} classes: take smaller cells"
            )
        return np.stack(list(_distinct(key(self.problem.seed, "lsp", "corners"), classes, dimension)))

    def _spreads(self, dimension: int) -> Floats:
        """The classes' matrices [K, d, d]."""
        classes = np.arange(self.class_count)
        values = uniform(key(self.problem.seed, "lsp", "spreads"), classes, dimension**2)
        return 2 * values.astype(np.float64).reshape(-1, dimension, dimension) - 1


def _distinct(purpose: int, count: int, dimension: int) -> Iterator[Floats]:
    seen: set[bytes] = set()
    draw = 0
    while len(seen) < count:
        corner = (bits(purpose, np.array([draw]), dimension)[0] & np.uint64(1)).astype(np.float64) * 2 - 1
        draw += 1
        if corner.tobytes() not in seen:
            seen.add(corner.tobytes())
            yield corner
