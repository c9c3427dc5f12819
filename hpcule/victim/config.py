"""A victim's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcule.victim.countermeasures.table import check_together, feature_step

SMALLEST_MICRO_BATCH = 4
"""Cut into parts of nearly equal size of at most so many, a share of two or more leaves no part a single sample, of
which BatchNorm has no variance."""

SMALLEST_INPUT = 32
"""Pixels that a network halving its resolution five times needs."""


@dataclass(frozen=True, kw_only=True)
class VictimConfig:
    """Supervised training from scratch: by default with SGD, as the field does, shortened for small nets."""

    network: str = "resnet-small"
    checkpoint: str | None = None
    """File with the trained weights that fine-tune and linear-probe begin with; None: the published ones."""
    input_size: int = 224
    """Pixels of the square to which these two resize images."""
    purifier: str | None = None
    """What diffusion and rebuild load: a folder of diffusers, and a program of torch.export."""
    epochs: int = 15
    steps: int | None = None
    """Optimizer steps of the whole run, whatever the batch; then `epochs` does not count."""
    batch: int = 128
    """Global; the last batches of an epoch differ by one sample instead of leaving a small rest."""
    micro_batch: int | None = None
    """Samples that a worker takes at a time; a larger share of a batch is cut, and its gradients add up."""
    optimizer: Literal["sgd", "adam", "lars", "lamb"] = "sgd"
    learning_rate: float = 0.1
    """Cosine to 0, stepped every batch, after a linear warm-up."""
    warmup_epochs: float = 1.0
    """None where the run is not longer than the warm-up."""
    momentum: float = 0.9
    """The first beta of Adam and LAMB."""
    weight_decay: float = 5e-4
    batch_norm: Literal["local", "synchronised"] = "local"
    """Statistics over the samples that a worker takes at a time, or over those of all workers."""
    augment: Literal["none", "crop-flip"] = "none"
    """crop-flip: zero padding of an eighth of the width, random crop, horizontal flip."""
    countermeasures: tuple[str, ...] = ()
    """Against the protection, in the order in which they act: jpeg-10, cutout, ..."""
    weight_noise: float = 0.0
    """Deviation of Gaussian noise on all weights while gradients are taken, for networks that bear it; it rises from 0
    over the first half of the steps."""
    weight_noise_draws: int = 1
    """Draws of that noise whose gradients a step averages."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    engine: Literal["ddp", "deepspeed"] = "ddp"
    zero: Literal[0, 1, 2] = 1
    """DeepSpeed's stage: 1 spreads the optimizer's state over the workers, 2 the gradients too."""
    target: float | None = None
    """Record the step at which the accuracy on the clean test set first reaches this."""
    evaluate_every: int | None = None
    """Look for the target every so many steps too, not at the end of an epoch alone."""
    noise_scale_every: int | None = None
    """Record the norms of the gradients' parts every so many steps, to estimate the gradient noise scale. The parts are
    the workers' shares of a batch; a single worker needs `micro_batch`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if min(self.epochs, self.batch) < 1:
            raise ValueError("epochs and batch must be at least 1")
        if self.input_size < SMALLEST_INPUT:
            raise ValueError(f"input_size must be at least {SMALLEST_INPUT}")
        check_together(self.countermeasures, crop_flip=self.augment == "crop-flip")
        learner = feature_step(self.countermeasures)
        for name in ("steps", "evaluate_every", "noise_scale_every"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.micro_batch is not None and self.micro_batch < SMALLEST_MICRO_BATCH:
            raise ValueError(f"micro_batch must be at least {SMALLEST_MICRO_BATCH}")
        if self.weight_noise < 0 or self.weight_noise_draws < 1:
            raise ValueError("weight_noise must be at least 0 and weight_noise_draws at least 1")
        if self.weight_noise and (self.engine != "ddp" or self.noise_scale_every is not None):
            raise ValueError("weight_noise needs engine=ddp, and goes with no noise_scale_every")
        if learner and (self.engine != "ddp" or self.weight_noise or self.noise_scale_every is not None):
            raise ValueError(f"{learner.name} needs engine=ddp, and goes with no weight_noise or noise_scale_every")
        if self.learning_rate <= 0 or min(self.momentum, self.weight_decay, self.warmup_epochs) < 0:
            raise ValueError("learning_rate must be above 0, momentum, warmup_epochs and weight_decay at least 0")
        if self.optimizer in ("adam", "lamb") and self.momentum >= 1:
            raise ValueError(f"momentum must be below 1 for {self.optimizer}")
        if self.engine == "deepspeed" and self.optimizer in ("lars", "lamb") and self.zero > 0:
            raise ValueError(f"zero={self.zero} cuts tensors apart, and {self.optimizer} needs them whole: use zero=0")
        if self.engine == "deepspeed" and self.noise_scale_every is not None:
            raise ValueError("noise_scale_every needs engine=ddp: DeepSpeed hides the workers' own gradients")
        if self.target is not None and not 0 < self.target <= 1:
            raise ValueError("target must be above 0 and at most 1")
        if self.evaluate_every is not None and self.target is None:
            raise ValueError("evaluate_every looks for a target: set victim.target too")
