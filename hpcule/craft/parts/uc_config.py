"""What UC can be set to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcule.config.run import BoundedConfig
from hpcule.craft.parts.cluster_generator import Bound


@dataclass(frozen=True, kw_only=True)
class UCConfig(BoundedConfig):
    """Defaults are the authors' for Oxford-IIIT Pets, but for the encoder."""

    name: str = "uc"
    epsilon: float = 16.0
    clusters: int = 10
    encoder: str = "efficientnet-lite0"
    """The authors use resnet50, for which torchvision downloads ImageNet weights."""
    checkpoint: str | None = None
    """State dict for the encoder; every key must match."""
    encoder_size: int = 224
    """Samples are resized to this height and width in front of the encoder, delta stays at the samples' own size."""
    bound: Bound = "clamp"
    """What keeps the generator's output, a tanh, in the budget: cut off, as the authors do, or shrunk."""
    direct: bool = False
    """Signed steps on the deltas themselves, without generators."""
    step_size: float | None = None
    """Levels of such a step; None: epsilon / 10."""
    epochs: int = 50
    steps: int | None = None
    """Generator steps a cluster; None: as many as `epochs` give. 0 publishes untrained generators (a control)."""
    batch: int = 256
    ghost: int = 32
    learning_rate: float = 1e-4
    """Adam, cosine to 1e-6 a step."""
    weight_decay: float = 5e-4
    """Coupled: added to the gradient."""
    fit_on: Literal["all", "cluster"] = "all"
    """Train a cluster's generator on all samples, as the authors' code does, or on its own, as their formula says."""
    target_offset: int = 1
    augment: bool = True
    """Padded crop and flip of the sample, before delta is added."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.clusters < 2:
            raise ValueError(f"clusters={self.clusters}: at least 2, since each is moved onto another one's centre")
        if self.target_offset % self.clusters == 0:
            raise ValueError(f"target_offset={self.target_offset}: must not be a multiple of clusters")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size={self.step_size:g}: must be above 0")
        if self.encoder_size < 32:
            raise ValueError(f"encoder_size={self.encoder_size}: at least 32")
        if min(self.batch, self.ghost) < 1 or min(self.epochs, self.steps or 0) < 0:
            raise ValueError("batch and ghost must be at least 1, epochs and steps at least 0")
