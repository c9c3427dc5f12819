"""CP: contrastive poisoning (He, Zha, Katabi; ICLR 2023, arXiv 2202.11202).

Both levels minimise a contrastive learner's own loss: min over theta, min over delta of
L(T1(x + delta), T2(x + delta)), with the same delta in both views. Sample-wise or class-wise; for SimCLR, MoCo v2 and
BYOL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts import cp_work
from hpcule.craft.parts.contrastive import (
    ContrastiveClassNoise,
    ContrastiveSampleNoise,
    ContrastiveSurrogate,
    new_learner,
    two_views,
)
from hpcule.craft.parts.two_phase import RateSchedule, TwoPhase, TwoPhaseConfig
from hpcule.craft.work import Extent, Work
from hpcule.data.schedule import Ghost
from hpcule.nets.contrastive import Contrastive


@dataclass(frozen=True, kw_only=True)
class CPConfig(TwoPhaseConfig):
    """Defaults are the authors' for CIFAR-10, sample-wise, by SimCLR's loss."""

    name: str = "cp"
    learner: Literal["simclr", "moco", "byol"] = "simclr"
    """Whose loss is lowered."""
    ghost: int = 128
    """Micro-batch, BatchNorm group, and group of negatives."""
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    model_epochs: int | None = 1
    schedule: RateSchedule = "cosine"
    augment: Literal["strong"] = "strong"
    smallest_crop: float = 0.2
    """Of a view: share of the image's area."""
    stop_error: float = -1.0
    max_rounds: int = 200
    subset: float = 1.0
    noise_batches: int = 20
    """Class-wise: minibatches of a noise phase; the walk through the data continues from round to round."""
    separation: float = 0.0
    """Sample-wise: weight of TUE's class separation in the noise phase, beside the mean contrastive loss."""
    temperature: float = 0.5
    """Of SimCLR's and MoCo's softmax."""
    target_momentum: float = 0.99
    """Of MoCo's and BYOL's second branch."""
    queue: int = 4096
    """Keys that are MoCo's negatives."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 0 < self.smallest_crop <= 1 or not 0 <= self.target_momentum <= 1:
            raise ValueError("smallest_crop must be above 0 to 1, target_momentum 0 to 1")
        if self.ghost < 2:
            raise ValueError(f"ghost={self.ghost}: at least 2, for it is the group of negatives")
        if self.temperature <= 0 or min(self.noise_batches, self.queue) < 1:
            raise ValueError("temperature must be above 0, noise_batches and queue at least 1")
        if self.separation < 0 or (self.separation and self.unit == "class"):
            raise ValueError(f"separation={self.separation:g}: at least 0, and 0 class-wise")
        if self.unit == "class" and (self.noise_steps or 1) > 1:
            raise ValueError(f"noise_steps={self.noise_steps}: class-wise a batch makes one")

    @property
    def default_noise_steps(self) -> int:
        """Five a round, but one for BYOL, and one a batch class-wise."""
        return 5 if self.unit == "sample" and self.learner != "byol" else 1

    @property
    def default_step(self) -> float:
        """Smaller for BYOL sample-wise."""
        return (0.02 if self.unit == "sample" and self.learner == "byol" else 0.1) * self.epsilon


class ContrastivePoisoning(TwoPhase):
    """Noise that makes two views of a sample easy to tell from all others."""

    facts: ClassVar[Facts] = Facts(
        title="CP: contrastive poisoning",
        data="images",
        task="contrastive pre-training and classification on top of it",
        intent="availability",
        needs_labels=False,
        bounded=True,
        needs_surrogate=True,
        robust="SimCLR's augmentation; sample-wise it does little to supervised victims",
        paper="arXiv 2202.11202",
        cost="SimCLR: 400 training and 2,000 noise passes; class-wise 410 and 410",
        weaknesses="expensive; made for one learner, and weaker on others; class-wise found by averaging a class",
    )
    config_class: ClassVar[type[MethodConfig]] = CPConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "batch": 256, "max_rounds": 15},
        "smoke": {"surrogate": "resnet-tiny", "batch": 128, "ghost": 64, "max_rounds": 3, "queue": 256},
    }
    variants: ClassVar[Mapping[str, Mapping[str, Settings]]] = {
        "learner": {
            "moco": {"learning_rate": 0.3, "temperature": 0.2},
            "byol": {"learning_rate": 1.0, "target_momentum": 0.999},
        },
        "unit": {"class": {"model_epochs": None, "model_steps": 20, "max_rounds": 1000}},
    }

    surrogate_class = ContrastiveSurrogate
    config: CPConfig

    @classmethod
    def needs_labels(cls, config: CPConfig) -> bool:
        """Sample-wise the learner needs none."""
        return config.unit == "class" or config.separation > 0

    @classmethod
    def work(cls, config: CPConfig, extent: Extent) -> Work:
        """Rounds of passes of two views."""
        return cp_work.work(config, extent)

    @classmethod
    def trial(cls, config: CPConfig, batch: int, workers: int) -> CPConfig:
        """Two short rounds."""
        return cp_work.trial(config, batch)

    def make_network(self, seed: int) -> Contrastive:
        """The learner."""
        return new_learner(self.config, self.problem.source.shape, seed)

    def make_noise(self) -> ContrastiveSampleNoise | ContrastiveClassNoise:
        """By sample or by class."""
        noise = ContrastiveSampleNoise if self.config.unit == "sample" else ContrastiveClassNoise
        return noise(self.config, self.problem, self.targets, self.direction)

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """Two views of clip(x + delta)."""
        clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
        images = self.seen(clean, ghost).clamp_(0, 1)
        return two_views(
            images, ghost.ids, self.config, self.problem.seed, "model view", self.batches // self.schedule.steps
        )
