"""AAP: augmented adversarial poisoning (Wang, Zhu, Gao; NeurIPS 2024, arXiv 2402.04010).

The surrogate is trained on clean samples through SimCLR's augmentation, once; then every sample is moved, through the
same augmentation, toward the label after its own, or away from its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.adversarial import Adversarial, AdversarialConfig
from hpcule.craft.parts.settings import RateSchedule, SurrogateTaskConfig
from hpcule.data.view import Augment


@dataclass(frozen=True, kw_only=True)
class AAPConfig(AdversarialConfig, SurrogateTaskConfig):
    """Defaults are the authors' for CIFAR-10; they take strength 0.8 for CIFAR-100."""

    name: str = "aap"
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    schedule: RateSchedule = "cosine"
    warmup_epochs: int = 10
    augment: Augment = "strong"
    strength: float = 0.4


class AugmentedAdversarial(Adversarial[AAPConfig]):
    """Adversarial examples of a surrogate that has seen strong augmentation."""

    facts: ClassVar[Facts] = Facts(
        title="AAP: augmented adversarial poisoning",
        data="images",
        task="classification, supervised or by contrastive pre-training",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, grayscale, contrastive training",
        paper="arXiv 2402.04010",
        cost="40 training and 250 noise passes",
        weaknesses="victims learn the wrong label rather than nothing; weakens with every clean sample; "
        "undone by JPEG and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = AAPConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "model_epochs": 20, "warmup_epochs": 4, "noise_steps": 50},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_epochs": 4, "warmup_epochs": 1, "noise_steps": 20},
    }
