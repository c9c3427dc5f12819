"""AUE: augmented unlearnable examples (Wang, Zhu, Gao; NeurIPS 2024, arXiv 2402.04010).

EM with SimCLR's augmentation in both phases: min over theta, min over delta of E_T CE(f_theta(T(x + delta)), y). Under
strong augmentation a supervised loss draws the contrastive one along with it, so that the noise holds against
contrastive learners too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.settings import AlternatingConfig, RateSchedule, SurrogateTaskConfig
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.data.view import Augment


@dataclass(frozen=True, kw_only=True)
class AUEConfig(AlternatingConfig, SurrogateTaskConfig):
    """Defaults are the authors' for CIFAR-10; they take strength 1.0 for CIFAR-100."""

    name: str = "aue"
    batch: int = 128
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    model_epochs: int | None = 1
    schedule: RateSchedule = "cosine"
    augment: Augment = "strong"
    strength: float = 0.6
    stop_error: float = -1.0
    """Error on the perturbed samples that ends crafting; below 0, all rounds are made."""
    max_rounds: int = 60
    subset: float = 1.0

    @property
    def default_noise_steps(self) -> int:
        """Five steps a round sample-wise, and one a batch class-wise."""
        return 5 if self.unit == "sample" else 1


class AugmentedUnlearnable(TwoPhase[AUEConfig]):
    """EM through strong augmentation."""

    facts: ClassVar[Facts] = Facts(
        title="AUE: augmented unlearnable examples",
        data="images",
        task="classification, supervised or by contrastive pre-training",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, contrastive training",
        paper="arXiv 2402.04010",
        cost="60 training and 300 noise passes",
        weaknesses="class-wise noise is found by averaging a class; sample-wise weakens with every clean sample; "
        "undone by JPEG and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = AUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "max_rounds": 12},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "max_rounds": 2},
    }
    sign_of_sum = True
