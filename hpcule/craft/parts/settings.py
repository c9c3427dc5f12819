"""The settings of the two-phase template, in parts: a method has those that change what it crafts, and no others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from hpcule.config.ranges import setting
from hpcule.config.run import EVERY, BoundedConfig, CraftTask, LocalConfig, TaskConfig
from hpcule.craft.method import Unit
from hpcule.data.source import Ids
from hpcule.data.view import Augment, View, draw_view
from hpcule.nets.pixel_nets import check_pixel_network

RateSchedule = Literal["constant", "cosine", "stairs"]
ONE_ROUND = ("unit", "subset", "max_rounds", "stop_error")
"""Settings of earlier versions without effect on sample-wise methods of one round."""


@dataclass(frozen=True, kw_only=True)
class TwoPhaseConfig(BoundedConfig, LocalConfig):
    """Settings of every method of the template: how the surrogate is trained, and the noise steps.

    Its properties are constants where a method has no setting of that name; the classes below make settings of them.
    """

    surrogate: str = "resnet18"
    """Network that is trained, and that the noise steps differentiate: convnet, resnet-tiny, resnet-small, ..."""
    batch: int = setting(512, at_least=1)
    """Samples of a training step, over all workers."""
    ghost: int = setting(32, at_least=1)
    """Micro-batch and BatchNorm group: part of the result."""
    learning_rate: float = setting(0.1, above=0)
    """Learning rate of SGD for the surrogate."""
    momentum: float = setting(0.9, at_least=0)
    """Momentum of SGD."""
    weight_decay: float = setting(5e-4, at_least=0)
    """Weight decay of SGD."""
    clip_norm: float | None = setting(5.0, above=0)
    """Largest L2 norm of the surrogate's gradient; None: no limit."""
    model_steps: int = setting(10, at_least=1)
    """Minibatches of a model phase; the walk through the data continues from round to round."""
    model_epochs: int | None = setting(None, at_least=1)
    """Passes over all samples in a model phase; overrides `model_steps`."""
    schedule: RateSchedule = "constant"
    """Course of the learning rate over all rounds; cosine to 0, or stairs that fall to a tenth at the milestones."""
    milestones: tuple[float, ...] = setting((0.375, 0.625, 0.875), above=0, below=1)
    """Parts of all rounds after which the learning rate falls with schedule=stairs."""
    warmup_epochs: int = setting(0, at_least=0)
    """Epochs over which the learning rate grows to its full height."""
    noise_steps: int | None = setting(None, at_least=1)
    """Signed steps on each delta in a noise phase; None: 20 sample-wise, 1 class-wise."""
    step_size: float | None = setting(None, above=0)
    """Levels a noise step; None: epsilon / 10."""

    @property
    def unit(self) -> Unit:
        """What one delta is shared by."""
        return "sample"

    @property
    def max_rounds(self) -> int:
        """Largest number of rounds."""
        return 1

    @property
    def stop_error(self) -> float:
        """Error of the surrogate on the perturbed samples at which the run ends early; below 0: never."""
        return -1.0

    @property
    def default_noise_steps(self) -> int:
        """Value of `noise_steps` if it is not set."""
        return 20 if self.unit == "sample" else 1

    @property
    def default_step(self) -> float:
        """Value of `step_size` if it is not set; may read the number of steps."""
        return self.epsilon / 10

    def resolved(self) -> Self:
        """The same settings with the noise steps and their size written out."""
        counted = replace(self, noise_steps=self.noise_steps or self.default_noise_steps)
        return replace(counted, step_size=counted.step_size or counted.default_step)

    def view(self, purpose: int, ids: Ids, size: tuple[int, int]) -> View | None:
        """The augmentation of samples of a height and width, drawn with the key `purpose`; None: no augmentation."""
        return None


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(TwoPhaseConfig):
    """Settings of the augmentation."""

    augment: Augment = "none"
    """Augmentation of what the surrogate sees in both phases, drawn again at every step; strong is SimCLR's."""
    strength: float = setting(1.0, at_least=0, at_most=1)
    """Strength of the strong augmentation."""

    def view(self, purpose: int, ids: Ids, size: tuple[int, int]) -> View | None:
        """The augmentation of these settings."""
        return draw_view(self.augment, self.strength, purpose, ids, size)


@dataclass(frozen=True, kw_only=True)
class RoundsConfig(TwoPhaseConfig):
    """Settings of methods that alternate between the phases."""

    stop_error: float = 0.01
    """Error of the surrogate on the perturbed samples at which the run ends; below 0: all rounds are made."""
    max_rounds: int = setting(30, at_least=1)
    """Largest number of rounds of a model phase and a noise phase."""


@dataclass(frozen=True, kw_only=True)
class ClassNoiseConfig(TwoPhaseConfig):
    """Settings of methods whose deltas may be shared by the samples of a class."""

    unit: Literal["sample", "class"] = "sample"
    """What one delta is shared by."""
    subset: float = setting(0.2, above=0, at_most=1)
    """Share of each class that a noise phase walks through with unit=class."""

    def __post_init__(self) -> None:
        """Check that what a class shares does not depend on single images."""
        super().__post_init__()
        if self.unit == "class" and self.flat < 1:
            raise ValueError(f"flat={self.flat:g}: a class shares its delta, whatever its images: set unit=sample")


@dataclass(frozen=True, kw_only=True)
class SurrogateTaskConfig(TaskConfig, TwoPhaseConfig):
    """Settings of methods whose surrogate learns whatever the perturbation is crafted for.

    It is the last of a method's bases, so that the defaults of the others count and not those of the template.
    """

    possible_task: ClassVar[tuple[CraftTask, ...]] = EVERY
    pixel_surrogate: str = "unet-small"
    """Network in place of `surrogate` for tasks that ask for something at every pixel: unet or unet-small."""

    def __post_init__(self) -> None:
        """Check which settings go together."""
        super().__post_init__()
        check_pixel_network(self.pixel_surrogate)
        if not self.task.one_label and self.unit == "class":
            task = self.task.written()
            raise ValueError(f"task={task}: samples share no delta where they have no class: set unit=sample")
        if "segmentation" in self.task.names and getattr(self, "augment", "none") != "none":
            raise ValueError("task=segmentation: masks do not follow an augmentation: set augment=none")


@dataclass(frozen=True, kw_only=True)
class AlternatingConfig(ClassNoiseConfig, RoundsConfig, AugmentConfig):
    """Settings of EM and of the methods that extend it."""
