"""What the rounds of the two-phase template cost."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from torch import nn

from hpcule.craft.parts.settings import ClassNoiseConfig, TwoPhaseConfig
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.nets import build

Config = TypeVar("Config", bound=TwoPhaseConfig)

FORWARD = 0.5
"""Of a noise pass, which is a forward and a backward to the pixels: counting errors takes the forward alone."""


def work(
    config: TwoPhaseConfig,
    extent: Extent,
    runs: int | None = None,
    *,
    model_passes: float = 1,
    model_updates: int = 1,
    noise_passes: float = 1,
    networks: int = 1,
    network: nn.Module | None = None,
) -> Work:
    """All rounds that there may be.

    Args:
        config: the settings.
        extent: how large the run is.
        runs: of a noise phase, each judged by a forward of its own; None: one, not judged.
        model_passes: of a sample in a model step.
        model_updates: of the surrogate in a model step.
        noise_passes: of a sample in a noise step, through each network.
        networks: that a noise phase looks through; as many are kept from the training where it is more than one.
        network: the surrogate, where it is no plain classifier.
    """
    channels, *size = extent.shape
    if network is None:
        network = build(config.surrogate, channels=channels, classes=extent.classes, size=(size[0], size[1]), seed=0)
    weights = _weights(network)
    walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
    phase = config.model_steps if config.model_epochs is None else config.model_epochs * walk.batches
    model = training(extent, network, walk, config.max_rounds * phase)
    model = replace(
        model,
        passes=model_passes * model.passes,
        calls=model_updates * model.calls,
        sums=model_updates * model.sums,
    )
    # All ids, and an epoch's order of them.
    memory = 16.0 * extent.samples
    checkpoint = 2.0 * 4 * weights
    if networks > 1:
        memory += 4.0 * weights * networks
        checkpoint += 4.0 * weights * networks
    if isinstance(config, ClassNoiseConfig) and config.unit == "class":
        shared = extent.classes
        noise = _noise_by_class(config, extent, noise_passes)
        checkpoint += 4 * shared * extent.values
    else:
        shared = 0
        noise = _noise_by_sample(config, extent, runs, noise_passes, networks)
        memory += 2 * extent.values * extent.own_samples
        checkpoint += 2 * extent.values * extent.samples
    note = (
        f"{config.max_rounds} rounds (method.max_rounds) are the most there can be: the run ends after the first "
        f"round with an error of at most {config.stop_error:g}"
    )
    notes = (note,) if config.stop_error >= 0 else ()
    return Work(phases=(model, *noise), memory=memory, checkpoint=checkpoint, shared=shared, notes=notes)


def trial(config: Config, batch: int) -> Config:
    """Two rounds of three model steps and two noise steps, where there are as many; the error ends none."""
    assert config.noise_steps is not None
    present = {field.name for field in fields(config)}
    kept = present & {"name", "unit", "surrogate", "ghost", "clip_norm", "augment", "strength"}
    short = {
        "batch": batch,
        "model_steps": 3,
        "model_epochs": None,
        "noise_steps": min(2, config.noise_steps),
        "stop_error": -1.0,
        "max_rounds": min(2, config.max_rounds),
        "subset": 1.0,
    }
    settings = {name: getattr(config, name) for name in kept} | short
    return type(config)(**{name: value for name, value in settings.items() if name in present}).resolved()


def training(extent: Extent, network: nn.Module, walk: Walk, steps: int, starts: int = 1) -> Phase:
    """Each step sums the gradients, and every ghost's BatchNorm statistics with the norm of its gradient."""
    weights = _weights(network)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    statistics = walk.ghosts / walk.batches * (1 + sum(2 * layer.num_features for layer in norms))
    return Phase(
        stage="model",
        marks=steps,
        passes=steps * walk.busiest(extent.workers) / walk.batches,
        calls=steps,
        starts=starts,
        sums=2 * steps,
        sum_bytes=(4 * statistics + extent.addend * weights) / 2,
        ranks=extent.workers,
        busy=min(extent.workers, walk.ghosts_a_batch),
    )


def _noise_by_sample(
    config: TwoPhaseConfig, extent: Extent, runs: int | None, each: float, networks: int
) -> tuple[Phase, Phase]:
    """Each rank steps on its own shards and counts their errors; only the number of errors is summed."""
    assert config.noise_steps is not None
    steps = config.noise_steps * each
    passes = steps if runs is None else runs * (steps + FORWARD)
    visits = config.max_rounds * networks * (passes + FORWARD)
    noise = Phase(
        stage="noise",
        marks=config.max_rounds * extent.own_shards,
        passes=visits * extent.own_samples,
        calls=visits * extent.tiles(),
        starts=config.max_rounds,
        busy=extent.workers,
    )
    return noise, _round(config, extent, passes=0.0)


def _noise_by_class(config: ClassNoiseConfig, extent: Extent, each: float) -> tuple[Phase, Phase]:
    """All ranks walk through the subset with a sum a batch, and once more to count errors."""
    assert config.noise_steps is not None
    subset = max(extent.classes, round(config.subset * extent.samples))
    walk = Walk.of(subset, extent.shards, config.ghost, config.batch)
    batches = config.max_rounds * walk.batches
    noise = Phase(
        stage="noise",
        marks=batches,
        passes=config.max_rounds * config.noise_steps * each * walk.busiest(extent.workers),
        calls=batches,
        starts=config.max_rounds,
        sums=batches,
        sum_bytes=extent.addend * extent.classes * (extent.values + 1),
        ranks=extent.workers,
        busy=min(extent.workers, walk.ghosts_a_batch),
    )
    return noise, _round(config, extent, passes=config.max_rounds * extent.own_shards * subset / extent.shards)


def _round(config: TwoPhaseConfig, extent: Extent, passes: float) -> Phase:
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


def _weights(network: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
