"""EM: error-minimising noise (Huang, Ma, Erfani, Bailey, Wang; ICLR 2021, arXiv 2101.04898).

Both levels minimise: min over theta, min over delta of CE(f_theta(x + delta), y) within the budget. No augmentation
while crafting, sample-wise or class-wise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts
from hpcule.craft.parts.settings import AlternatingConfig
from hpcule.craft.parts.two_phase import TwoPhase


@dataclass(frozen=True, kw_only=True)
class EMConfig(AlternatingConfig):
    """Defaults are the authors' for CIFAR-10; their code has no largest number of rounds."""

    name: str = "em"


class ErrorMinimizing(TwoPhase[EMConfig]):
    """Noise that lowers the loss of the true label, so that nothing is left to learn."""

    facts: ClassVar[Facts] = Facts(
        title="EM: error-minimising noise",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops and flips",
        paper="arXiv 2101.04898",
        cost="20 noise passes and about 0.1 training passes a round, about 10 rounds; class-wise 0.2 noise passes",
        weaknesses="class-wise noise is found by averaging a class; sample-wise weakens with every clean sample; "
        "undone by JPEG, grayscale and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = EMConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"surrogate": "resnet-tiny", "batch": 128, "model_steps": 20, "max_rounds": 12},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_steps": 5, "max_rounds": 3},
    }
