"""AR: autoregressive perturbations (Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, Jacobs; NeurIPS 2022,
arXiv 2206.03693).

Each class has an autoregressive process, each sample a pattern that its class's process grows from a random start. The
deltas of a class look unlike each other and no hyperplane separates the classes, yet one 3 x 3 filter does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from hpcule.config.ranges import setting
from hpcule.config.run import LengthConfig, MethodConfig, TaskConfig
from hpcule.craft.method import Event, Facts, Problem, Step
from hpcule.craft.parts.autoregression import find_coefficients, generate
from hpcule.craft.parts.model_free import Floats, Integers, OfOneLength
from hpcule.data.source import Ids, Labels
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class ARConfig(LengthConfig, TaskConfig):
    """Defaults are the authors' for 32 x 32."""

    name: str = "ar"
    crop: int = setting(4, at_least=2)
    """First rows and columns of a pattern that are left out, at least the two random ones; 2 at 224 x 224."""
    response: float | None = setting(None, at_least=0)
    """Smallest answer of a class's filter to another's patterns, at 32 x 32, and in proportion to the side
    at other sizes. None: 10 up to 10 classes, else 3."""


class Autoregressive(OfOneLength[ARConfig]):
    """A process a class, a pattern a sample."""

    facts: ClassVar[Facts] = Facts(
        title="AR: autoregressive perturbations",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="crops, flips, cutout, mixing",
        paper="arXiv 2206.03693",
        cost="no surrogate: 27 multiply-adds a value",
        weaknesses="single values move by 40 levels and more; whoever finds the nine coefficients finds the class; "
        "undone by JPEG, strong augmentation and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = ARConfig
    root_mean_square = 255 / math.sqrt(3072)
    """A length of 1 (255 levels) at 32 x 32 x 3, and of 3 at 96 x 96 x 3, as the authors have it."""

    @classmethod
    def takes_volumes(cls, config: ARConfig) -> bool:
        """Whether these settings can craft for volumes: always."""
        return True

    def __init__(self, config: ARConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.coefficients: Floats | None = None

    def prepare(self) -> Iterator[Event]:
        """Rank 0 finds the classes' coefficients: another processor's last bits might accept other ones."""
        source, world = self.problem.source, self.problem.world
        found = torch.zeros(self.class_count, source.shape[0], 3, 3, dtype=torch.float64, device=world.device)
        if world.leads:
            base = self.config.response
            if base is None:
                base = 10.0 if self.class_count <= 10 else 3.0
            purpose = key(self.problem.seed, "ar", "coefficients")
            found.copy_(torch.from_numpy(find_coefficients(len(found), source.shape, self.config.crop, base, purpose)))
        self.coefficients = world.broadcast(found).cpu().numpy()
        yield Step("coefficients", 1, 1)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """A pattern of each sample's class, of the budget's length."""
        assert self.coefficients is not None
        _, height, width = self.problem.source.shape
        purpose = key(self.problem.seed, "ar", "starts")
        pattern = generate(self.coefficients[labels], purpose, ids, height, width, self.config.crop)
        return self.published_change(pattern, clean)
