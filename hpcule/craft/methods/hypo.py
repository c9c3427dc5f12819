"""HYPO: hypocritical perturbations (Tao, Feng, Yi, Huang, Chen; NeurIPS 2021, arXiv 2102.04716).

Every sample is moved toward its own label for a surrogate trained on clean samples: it looks easier than it is, and
gives a victim little to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.adversarial import Adversarial, AdversarialConfig
from hpcule.craft.parts.settings import RateSchedule, SurrogateTaskConfig


@dataclass(frozen=True, kw_only=True)
class HypoConfig(AdversarialConfig, SurrogateTaskConfig):
    """Noise as in APBench; how its surrogate was trained is not stated: as TAP's, without augmentation."""

    name: str = "hypo"
    schedule: RateSchedule = "stairs"
    label_shift: int = 0
    noise_steps: int | None = 100

    @property
    def default_step(self) -> float:
        """Levels a noise step: a tenth of the budget."""
        return 0.1 * self.epsilon


class Hypocritical(Adversarial[HypoConfig]):
    """Samples that look easier than they are."""

    facts: ClassVar[Facts] = Facts(
        title="HYPO: hypocritical perturbations",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="nothing: made to mislead the judgement of a model, not to protect",
        paper="arXiv 2102.04716",
        cost="40 training and 100 noise passes",
        weaknesses="weak: 70 % on CIFAR-10 in APBench; undone by JPEG",
    )
    config_class: ClassVar[type[MethodConfig]] = HypoConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "model_epochs": 20, "noise_steps": 40},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_epochs": 4, "noise_steps": 20},
    }
