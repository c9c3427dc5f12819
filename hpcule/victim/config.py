"""A victim's recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from hpcule.config.ranges import check_ranges, setting
from hpcule.nets.pixel_nets import check_pixel_network
from hpcule.tasks.task import TaskName
from hpcule.victim.countermeasures.table import PLAIN, Countermeasures, Stage

OptimizerName = Literal["sgd", "adam", "lars", "lamb"]
SMALLEST_MICRO_BATCH = 4
"""Smallest micro-batch: a share of two or more samples, cut into parts of nearly equal size and at most this number of
samples, leaves no part a single sample, of which BatchNorm has no variance."""

SMALLEST_INPUT = 32
"""Pixels that a network halving its resolution five times needs."""


@dataclass(frozen=True, kw_only=True)
class VictimConfig:
    """Supervised training from scratch: by default with SGD, as the field does, shortened for small nets."""

    task: TaskName = "label"
    """What is learnt: label, labels, segmentation, rotation, colour or edges."""
    network: str = "resnet-small"
    checkpoint: str | None = None
    """File with the trained weights that fine-tune and linear-probe begin with; None: the published ones."""
    input_size: int | None = setting(None, at_least=SMALLEST_INPUT)
    """Pixels of the square to which these two resize images; None: those for which the network was trained."""
    pixel_network: str = "unet"
    """Network of tasks that ask for numbers at every pixel, in place of `network`."""
    purifier: str | None = None
    """What diffusion and rebuild load: a folder of diffusers, and a program of torch.export."""
    epochs: int | None = setting(None, at_least=1)
    """Passes over all samples; None: 15, or of fewer than 2,500 samples more, see `enough_epochs`."""
    steps: int | None = setting(None, at_least=1)
    """Optimizer steps of the whole run, whatever the batch; then `epochs` does not count."""
    batch: int = setting(128, at_least=1)
    """Samples of a training step, over all workers; the last step of an epoch takes what is left."""
    micro_batch: int | None = setting(None, at_least=SMALLEST_MICRO_BATCH)
    """Samples that a worker takes at a time; a larger share of a batch is cut, and its gradients add up."""
    optimizer: OptimizerName = "sgd"
    learning_rate: float = setting(0.1, above=0)
    """Largest learning rate; it changes with every batch."""
    schedule: Literal["cosine", "triangular"] = "cosine"
    """Fall of the learning rate to 0: by a cosine over the run, or by a straight line from the end of the warm-up."""
    warmup_epochs: float = setting(1.0, at_least=0)
    """Epochs of linear warm-up of the learning rate; ignored if the run is not longer."""
    momentum: float = setting(0.9, at_least=0)
    """Momentum of SGD and LARS; the first beta of Adam and LAMB."""
    nesterov: bool = False
    """Nesterov's momentum in place of SGD's."""
    average_weights: bool = False
    """Every five steps of SGD, replace the weights by a running mean of those of such steps; its memory grows over the
    run, see `AveragedSGD`."""
    weight_decay: float = setting(5e-4, at_least=0)
    """Weight decay of the optimizer."""
    label_smoothing: float = setting(0.0, at_least=0, below=1)
    """Share of every label that goes to all classes equally."""
    batch_norm: Literal["local", "synchronised"] = "local"
    """Statistics over the samples that a worker takes at a time, or over those of all workers."""
    countermeasures: Countermeasures = PLAIN
    """Steps of the training in the order in which they act: crop-flip, jpeg-10, cutout, mix-0.5, ...; crop-flip is zero
    padding of an eighth of the width, a random crop and a horizontal flip."""
    weight_noise: float = setting(0.0, at_least=0)
    """Deviation of Gaussian noise on all weights while gradients are taken, for networks that bear it; it rises from 0
    over the first half of the steps."""
    weight_noise_draws: int = setting(1, at_least=1)
    """Draws of that noise whose gradients a step averages."""
    clip_norm: float | None = setting(None, above=0)
    """Largest norm of a step's gradient over all weights; None: gradients are not clipped."""
    precision: Literal["auto", "fp32", "bf16", "bf16-weights"] = "auto"
    """bf16 computes under autocast, with float32 weights; with bf16-weights the weights are bf16 too, and the optimizer
    moves float32 copies of them."""
    engine: Literal["ddp", "deepspeed"] = "ddp"
    zero: Literal[0, 1, 2, 3] = 1
    """DeepSpeed's stage: 1 spreads the optimizer's state over the workers, 2 the gradients too, 3 the weights too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What DeepSpeed keeps in main memory instead of the GPU's: the optimizer's state, or that and the parameters."""
    target: float | None = setting(None, above=0, at_most=1)
    """Record the step at which the accuracy on the clean test set first reaches this."""
    evaluate_every: int | None = setting(None, at_least=1)
    """Interval of steps at which the target is looked for too, in addition to the ends of epochs."""
    noise_scale_every: int | None = setting(None, at_least=1)
    """Interval of steps at which the norms of the gradients' parts are recorded, to estimate the noise scale. The parts
    are the workers' shares of a batch; a single worker needs `micro_batch`."""

    replaced: ClassVar[Mapping[str, Callable[[object], str]]] = {
        "augment": lambda value: f"countermeasures=[{'plain' if value == 'none' else value}]"
    }

    def __post_init__(self) -> None:
        """Check ranges, and which settings go together."""
        check_ranges(self)
        check_pixel_network(self.pixel_network)
        learner = self.countermeasures.features
        if self.weight_noise and (self.engine != "ddp" or self.noise_scale_every is not None):
            raise ValueError("weight_noise needs engine=ddp, and goes with no noise_scale_every")
        if learner and (self.engine != "ddp" or self.weight_noise or self.noise_scale_every is not None):
            raise ValueError(f"{learner.name} needs engine=ddp, and goes with no weight_noise or noise_scale_every")
        if self.optimizer in ("adam", "lamb") and self.momentum >= 1:
            raise ValueError(f"momentum must be below 1 for {self.optimizer}")
        if self.engine == "deepspeed" and self.optimizer in ("lars", "lamb") and self.zero > 0:
            raise ValueError(f"zero={self.zero} cuts tensors apart, and {self.optimizer} needs them whole: use zero=0")
        if self.engine == "deepspeed" and self.noise_scale_every is not None:
            raise ValueError("noise_scale_every needs engine=ddp: DeepSpeed hides the workers' own gradients")
        self._check_zero()
        self._check_speed()
        if self.evaluate_every is not None and self.target is None:
            raise ValueError("evaluate_every looks for a target: set victim.target too")

    def _check_zero(self) -> None:
        """Check the settings of DeepSpeed that need one of its stages."""
        stage = self.zero if self.engine == "deepspeed" else -1
        needs: list[tuple[str, bool, int]] = [
            ("precision=bf16-weights", self.precision == "bf16-weights", 2),
            ("offload=optimizer", self.offload == "optimizer", 1),
            ("offload=parameters", self.offload == "parameters", 3),
        ]
        for name, is_set, least in needs:
            if is_set and stage < least:
                raise ValueError(f"{name} needs engine=deepspeed and zero={least}{' or more' if least < 3 else ''}")

    def _check_speed(self) -> None:
        """Check the settings that only some optimizers, engines and tasks have."""
        if self.optimizer != "sgd" and (self.nesterov or self.average_weights):
            raise ValueError("nesterov and average_weights need optimizer=sgd")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        if self.average_weights and self.engine != "ddp":
            raise ValueError("average_weights needs engine=ddp: DeepSpeed keeps copies of the weights")
        if self.label_smoothing and not self.smooths_labels:
            raise ValueError("label_smoothing is for the tasks label and rotation, and goes with no fixmatch")

    @property
    def smooths_labels(self) -> bool:
        """Whether a share of the labels can go to all classes: every sample has one, which its loss reads."""
        return self.task in ("label", "rotation") and self.countermeasures.named("fixmatch") is None

    def without(self, *stages: Stage) -> VictimConfig:
        """The settings without the countermeasures of these stages."""
        return dataclasses.replace(self, countermeasures=self.countermeasures.without(*stages))
