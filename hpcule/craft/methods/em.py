"""EM: error-minimising noise (Huang, Ma, Erfani, Bailey, Wang; ICLR 2021, arXiv 2101.04898).

Both levels minimise: min over theta, min over delta of CE(f_theta(x + delta), y) within the budget. No augmentation
while crafting, sample-wise or class-wise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.settings import AlternatingConfig, SurrogateTaskConfig
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.data.schedule import LINE_BYTES
from hpcule.nets import build

FORWARD = 0.5
"""Share of a noise pass, which is a forward and a backward to the pixels, that counting errors takes: the forward."""


@dataclass(frozen=True, kw_only=True)
class EMConfig(AlternatingConfig, SurrogateTaskConfig):
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
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "batch": 128, "model_steps": 20, "max_rounds": 12},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_steps": 5, "max_rounds": 3},
    }

    @classmethod
    def takes_volumes(cls, config: EMConfig) -> bool:
        """Whether these settings can craft for volumes: with masks, whose surrogate has three dimensions."""
        return config.task.names == ("segmentation",)

    @classmethod
    def work(cls, config: EMConfig, extent: Extent) -> Work | None:
        """All rounds that there may be; not counted for other tasks than one label."""
        if not config.task.one_label:
            return None
        channels, *size = extent.shape
        network = build(config.surrogate, channels=channels, classes=extent.classes, size=(size[0], size[1]), seed=0)
        weights = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        noise = _noise_by_sample(config, extent) if config.unit == "sample" else _noise_by_class(config, extent)
        # Two epochs' orders of own ids, and where all ghosts lie; weights and momenta.
        memory = 16.0 * extent.own_samples + LINE_BYTES * extent.samples / config.ghost
        checkpoint = 2.0 * 4 * weights
        shared = 0 if config.unit == "sample" else extent.classes
        if config.unit == "sample":
            memory += 2 * extent.values * extent.own_samples
            checkpoint += 2 * extent.values * extent.samples
        else:
            checkpoint += 4 * shared * extent.values
        note = (
            f"{config.max_rounds} rounds (method.max_rounds) are the most there can be: the run ends after the first "
            f"round with an error of at most {config.stop_error:g}"
        )
        notes = (note,) if config.stop_error >= 0 else ()
        phases = (_model(config, extent, network, weights), *noise)
        return Work(phases=phases, memory=memory, checkpoint=checkpoint, shared=shared, notes=notes)

    @classmethod
    def trial(cls, config: EMConfig, batch: int, workers: int) -> EMConfig:
        """Two rounds of three model steps and two noise steps, where there are as many; the error ends none."""
        assert config.noise_steps is not None
        return EMConfig(
            name=config.name,
            unit=config.unit,
            surrogate=config.surrogate,
            batch=batch,
            ghost=config.ghost,
            clip_norm=config.clip_norm,
            model_steps=3,
            augment=config.augment,
            strength=config.strength,
            noise_steps=min(2, config.noise_steps),
            stop_error=-1.0,
            max_rounds=min(2, config.max_rounds),
            subset=1.0,
        ).resolved()


def _model(config: EMConfig, extent: Extent, network: nn.Module, weights: int) -> Phase:
    """Each step sums the gradients, and every ghost's BatchNorm statistics with the norm of its gradient."""
    walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
    phase = config.model_steps if config.model_epochs is None else config.model_epochs * walk.batches
    steps = config.max_rounds * phase
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    statistics = (walk.ghosts + walk.cuts) / walk.batches * (1 + sum(2 * layer.num_features for layer in norms))
    return Phase(
        stage="model",
        marks=steps,
        passes=steps * walk.busiest(extent.workers) / walk.batches,
        calls=steps,
        sums=2 * steps,
        sum_bytes=(4 * statistics + extent.addend * weights) / 2,
        ranks=extent.workers,
        busy=min(extent.workers, walk.ghosts_a_batch),
    )


def _noise_by_sample(config: EMConfig, extent: Extent) -> tuple[Phase, Phase]:
    """Each rank steps on its own shards and counts their errors; only the number of errors is summed."""
    assert config.noise_steps is not None
    visits = config.max_rounds * (config.noise_steps + FORWARD)
    noise = Phase(
        stage="noise",
        marks=config.max_rounds * extent.own_shards,
        passes=visits * extent.own_samples,
        calls=visits * extent.tiles(),
        starts=config.max_rounds,
        busy=extent.workers,
    )
    return noise, _round(config, extent, passes=0.0)


def _noise_by_class(config: EMConfig, extent: Extent) -> tuple[Phase, Phase]:
    """All ranks walk through the subset with a sum a batch, and once more to count errors."""
    assert config.noise_steps is not None
    subset = max(extent.classes, round(config.subset * extent.samples))
    walk = Walk.of(subset, extent.shards, config.ghost, config.batch)
    batches = config.max_rounds * walk.batches
    noise = Phase(
        stage="noise",
        marks=batches,
        passes=config.max_rounds * config.noise_steps * walk.busiest(extent.workers),
        calls=batches,
        starts=config.max_rounds,
        sums=batches,
        sum_bytes=extent.addend * extent.classes * (extent.values + 1),
        ranks=extent.workers,
        busy=min(extent.workers, walk.ghosts_a_batch),
    )
    return noise, _round(config, extent, passes=config.max_rounds * extent.own_shards * subset / extent.shards)


def _round(config: EMConfig, extent: Extent, passes: float) -> Phase:
    """The end of a round: the number of errors is summed."""
    return Phase(
        stage="round",
        marks=config.max_rounds,
        passes=passes,
        calls=config.max_rounds,
        sums=config.max_rounds,
        sum_bytes=8,
        ranks=extent.workers,
        busy=extent.workers,
    )
