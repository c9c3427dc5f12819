"""SEM: stable error-minimising noise (Liu, Xu, Chen, Sun; AAAI 2024, arXiv 2311.13091).

REM whose noise has to stand random perturbations instead of an adversary's: most of REM's passes are spent on that
adversary. The surrogate still is trained against one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts
from hpcule.craft.methods.rem import REMConfig, RobustErrorMinimizing


@dataclass(frozen=True, kw_only=True)
class SEMConfig(REMConfig):
    """Defaults of REM, but with random perturbations in place of the adversary."""

    name: str = "sem"
    against: Literal["adversary", "random"] = "random"


class StableErrorMinimizing(RobustErrorMinimizing):
    """REM without an adversary against the noise."""

    facts: ClassVar[Facts] = Facts(
        title="SEM: stable error-minimising noise",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, adversarial training of small radius",
        paper="arXiv 2311.13091",
        cost="about 140 training and 700 noise passes",
        weaknesses="adversarial training as wide as its own budget undoes it; undone by grayscale and JPEG",
    )
    config_class: ClassVar[type[MethodConfig]] = SEMConfig
