"""CUDA: convolution-based unlearnable data (Sadasivan, Soltanolkotabi, Feizi; CVPR 2023, arXiv 2303.04278).

Each class has a private random filter, and all of its samples are blurred with it. Nothing bounds the change: the
samples look blurred, and a victim learns to tell the filters apart. With filters of one column or of one row they are
blurred in one direction only, after the names of VUDA and HUDA, two variants by the authors of the countermeasure COIN
whose details we have not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Problem
from hpcule.craft.parts.model_free import Integers, SampleWise
from hpcule.data.source import Ids, Labels
from hpcule.store.budget import Budget
from hpcule.world.keyed import bits, key, uniform


@dataclass(frozen=True, kw_only=True)
class CUDAConfig(MethodConfig):
    """Defaults are the authors' for CIFAR-10 and CIFAR-100."""

    name: str = "cuda"
    kernel: int = setting(3, at_least=3)
    """Side of the filters, odd; 9 at 224 x 224."""
    blur: float = setting(0.3, above=0, at_most=1)
    """Taps are uniform between 0 and this, but for one of 1: larger blurs and protects more; 0.06 at 224 x 224."""
    direction: Literal["both", "vertical", "horizontal"] = "both"
    """vertical: filters of one column; horizontal: of one row."""

    def __post_init__(self) -> None:
        """Check ranges, and that a filter has a middle."""
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: valid are odd numbers from 3")


class Convolution(SampleWise[CUDAConfig]):
    """A filter a class."""

    facts: ClassVar[Facts] = Facts(
        title="CUDA: class-wise convolution",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=False,
        needs_surrogate=False,
        claimed="crops, flips, adversarial training",
        paper="arXiv 2303.04278",
        cost="no surrogate: one 3 x 3 convolution",
        weaknesses="visible: about 19 dB; whoever learns the filters can invert them; "
        "undone by random displacement (COIN) and by sharpening with a DCT",
    )
    config_class: ClassVar[type[MethodConfig]] = CUDAConfig

    def __init__(self, config: CUDAConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.filters = self._filters().to(problem.world.device)

    @classmethod
    def budget(cls, config: CUDAConfig, shape: tuple[int, int, int], levels: int) -> Budget:
        """The whole grid: there is no bound."""
        return Budget("linf", levels)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Blurred with the class's filter and scaled so that the sample's brightest value is white."""
        levels, device = self.problem.source.levels, self.problem.world.device
        delta = np.zeros(clean.shape, np.int32)
        for label in np.unique(labels):
            own = clean[labels == label]
            blurred = convolved(torch.from_numpy(own).to(device).float(), self.filters[label])
            # A black sample stays black.
            brightest = blurred.amax(dim=(1, 2, 3), keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
            published = blurred.div_(brightest).mul_(levels).round_().to(torch.int32).cpu().numpy()
            delta[labels == label] = published - own
        return delta

    def _filters(self) -> Tensor:
        """float32 [K, 1, 1, h, w]."""
        config, classes = self.config, np.arange(self.problem.source.class_count)
        height = 1 if config.direction == "horizontal" else config.kernel
        width = 1 if config.direction == "vertical" else config.kernel
        taps = config.blur * uniform(key(self.problem.seed, "cuda", "taps"), classes, height * width)
        ones = bits(key(self.problem.seed, "cuda", "ones"), classes, 1)[:, 0] % np.uint64(height * width)
        taps[classes, ones.astype(np.int64)] = 1
        return torch.from_numpy(taps).view(-1, 1, 1, height, width)


def convolved(samples: Tensor, weights: Tensor) -> Tensor:
    """Samples [n, C, H, W] with every channel filtered by the same weights [1, 1, h, w], zeros around the edge."""
    _, _, height, width = weights.shape
    channels = samples.flatten(0, 1).unsqueeze(1)
    return functional.conv2d(channels, weights, padding=(height // 2, width // 2)).view(samples.shape)
