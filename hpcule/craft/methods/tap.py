"""TAP: targeted adversarial poisoning (Fowl, Goldblum, Chiang, Geiping, Czaja, Goldstein; NeurIPS 2021,
arXiv 2106.10807).

Every sample is made an adversarial example of the label after its own, for a surrogate trained on clean samples: a
victim that learns from them learns the wrong labels. Untargeted (`targeted=false`) it moves away from its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.adversarial import Adversarial, AdversarialConfig
from hpcule.craft.parts.settings import RateSchedule, SurrogateTaskConfig
from hpcule.data.view import Augment


@dataclass(frozen=True, kw_only=True)
class TAPConfig(AdversarialConfig, SurrogateTaskConfig):
    """Defaults are the authors' for CIFAR-10."""

    name: str = "tap"
    schedule: RateSchedule = "stairs"
    augment: Augment = "crop-flip"
    start: Literal["zero", "normal"] = "normal"
    restarts: int = 8

    @property
    def default_step(self) -> float:
        """Levels a noise step: a twentieth of the budget."""
        return 0.05 * self.epsilon


class TargetedAdversarial(Adversarial[TAPConfig]):
    """Adversarial examples of the next label."""

    facts: ClassVar[Facts] = Facts(
        title="TAP: targeted adversarial poisoning",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, grayscale",
        paper="arXiv 2106.10807",
        cost="40 training and 2,000 noise passes",
        weaknesses="victims learn the wrong label rather than nothing; weakens with every clean sample; "
        "undone by JPEG and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = TAPConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "model_epochs": 20, "noise_steps": 50, "restarts": 1},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_epochs": 4, "noise_steps": 20, "restarts": 1},
    }
