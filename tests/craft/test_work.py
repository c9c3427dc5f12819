"""The cost model against slow counts of what real runs do."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import ToySource, craft, make_problem

from hpcule.craft.methods import texture_learned, uc
from hpcule.craft.table import configure, find
from hpcule.craft.work import Extent, Walk
from hpcule.data.partition import Partition
from hpcule.data.schedule import LINE_BYTES, Schedule


def extent_of(source, shards, workers, *, exact=True):
    return Extent(
        samples=len(source),
        shards=shards,
        shape=source.shape,
        classes=source.class_count,
        levels=source.levels,
        workers=workers,
        exact=exact,
    )


def slow_busiest(schedule, workers):
    """Samples looked at one after another in an epoch: the sum over batches of the busiest rank's samples."""
    total = 0
    for batch in schedule.epoch(0):
        shares = [0] * workers
        for ghost in batch:
            shares[ghost.shard % workers] += len(ghost.ids)
        total += max(shares)
    return total


@pytest.mark.parametrize(("n", "shards"), [(1000, 8), (997, 12), (130, 4), (64, 64), (50_000, 64)])
@pytest.mark.parametrize(("ghost", "batch"), [(32, 128), (7, 50), (128, 512), (1000, 10)])
def test_a_walk_counts_as_the_schedule_does(n, shards, ghost, batch):
    cut = Partition(n, shards)
    members = [cut.ids(shard) for shard in range(shards)]
    schedule = Schedule(members, ghost, batch, None, "test")
    walk = Walk.of(n, shards, ghost, batch)
    assert walk.batches == schedule.steps == len(schedule.epoch(0))
    assert walk.ghosts + walk.cuts == sum(map(len, schedule.epoch(0)))
    whole = [math.ceil(len(ids) / ghost) for ids in members]
    assert walk.ghosts == sum(whole)
    assert 0 <= walk.ghosts_a_batch - min(batch, n) / walk.mean_ghost < 1
    assert walk.busiest(1) == pytest.approx(n)
    largest = math.ceil(max(map(len, members)) / min(whole))
    for workers in (2, 3, 4):
        slow, model = slow_busiest(schedule, workers), walk.busiest(workers)
        assert abs(slow - model) <= walk.batches * (largest + walk.ghosts_a_batch)
        if shards % workers == 0 and not walk.cuts:
            # Ghosts are nearly, not exactly, equal.
            assert abs(slow - model) <= walk.batches * walk.ghosts_a_batch


def settings_of(name, **values):
    overrides = [f"method.{key}={value}" for key, value in values.items()]
    return configure(name, "toys", preset="smoke", file={}, overrides=overrides).method


PIL = {"epochs": 3, "batch": 20, "ghost": 5, "steps": 4}
EM = {"surrogate": "convnet", "batch": 20, "ghost": 5, "model_steps": 3, "max_rounds": 2, "stop_error": -1}
RUNS = [
    ("pil", PIL),
    ("em", EM),
    ("em", {**EM, "unit": "class", "subset": 1.0}),
]
COUNTED = ("em", "pil", "uc", "texture-learned")
"""Methods with a closed form."""


def run_method(world, name, settings, shards):
    """Steps by stage, and the calls and bytes of the method's own collectives."""
    source = ToySource(60)
    torch.set_num_threads(1)
    method = find(name)(settings_of(name, **settings), make_problem(source, world, shards=shards))
    before = world.spent.copy()
    steps = [step.stage for step in craft(method).steps]
    spent = world.spent
    return {s: steps.count(s) for s in dict.fromkeys(steps)}, spent.calls - before.calls, spent.bytes - before.bytes


@pytest.mark.parametrize(("name", "settings"), RUNS)
@pytest.mark.parametrize("shards", [4, 7])
def test_steps_sums_and_bytes_are_those_of_a_real_run(pool, name, settings, shards):
    source = ToySource(60)
    (marks, calls, size), _ = pool.run(run_method, name, settings, shards)
    work = find(name).work(settings_of(name, **settings), extent_of(source, shards, 2))
    assert marks == {phase.stage: phase.marks for phase in work.phases}
    assert calls == sum(phase.sums for phase in work.phases)
    # Statistics are sent by ghost, and keys by sample; an epoch's last batch has fewer.
    assert size == pytest.approx(sum(phase.sums * phase.sum_bytes for phase in work.phases), rel=0.01)


@pytest.mark.parametrize(("name", "settings"), RUNS)
def test_a_single_worker_sends_nothing(alone, name, settings):
    _, calls, size = run_method(alone, name, settings, 4)
    assert calls == size == 0


class CountingEncoder(nn.Module):
    """Counts the samples that it sees."""

    name, weights_sha256, dimension = "counting", "0", 64

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Flatten())
        self.requires_grad_(False)
        self.eval()
        self.seen = -1
        """Not counted: the example that shows which layer follows which."""

    def forward(self, images):
        self.seen += len(images)
        return self.network(images)


@pytest.mark.parametrize("fit_on", ["all", "cluster"])
def test_samples_that_go_through_the_encoder_of_uc(alone, monkeypatch, fit_on):
    encoder = CountingEncoder()
    monkeypatch.setattr(uc, "load_encoder", lambda name, checkpoint, *, input_size: encoder)
    source = ToySource(48)
    config = settings_of("uc", clusters=2, batch=12, ghost=6, steps="null", epochs=2, fit_on=fit_on)
    steps = [step.stage for step in craft(find("uc")(config, make_problem(source, alone))).steps]
    features, clusters, generators = find("uc").work(config, extent_of(source, 4, 1)).phases
    assert encoder.seen == len(source) * (1 + 2 * (2 if fit_on == "all" else 1))
    assert features.passes + generators.passes == pytest.approx(encoder.seen)
    assert (features.marks, clusters.marks) == (steps.count("features"), steps.count("clusters"))
    if fit_on == "all":
        assert generators.marks == steps.count("generators")


def learn_spectra(world, shards):
    """Steps by stage, samples that went through an encoder, and the method's own collectives and their bytes."""
    encoders = {"first": CountingEncoder(), "second": CountingEncoder()}
    config = settings_of("texture-learned", encoders="[first, second]", batch=12, ghost=6, steps=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texture_learned, "load_encoder", lambda name, checkpoint, *, input_size: encoders[name])
        method = find("texture-learned")(config, make_problem(ToySource(48), world, shards=shards))
    before = world.spent.copy()
    steps = [step.stage for step in craft(method).steps]
    sent = world.spent.calls - before.calls, world.spent.bytes - before.bytes
    return {s: steps.count(s) for s in dict.fromkeys(steps)}, sum(encoder.seen for encoder in encoders.values()), sent


@pytest.mark.parametrize("workers", [1, 2])
def test_what_learning_spectra_takes(pool, alone, monkeypatch, workers):
    monkeypatch.setattr(texture_learned, "FEATURES", CountingEncoder.dimension)
    found = [learn_spectra(alone, 4)] if workers == 1 else pool.run(learn_spectra, 4)
    config = settings_of("texture-learned", encoders="[first, second]", batch=12, ghost=6, steps=8)
    spectra, noise = find("texture-learned").work(config, extent_of(ToySource(48), 4, workers)).phases
    for marks, passes, sent in found:
        assert marks == {"spectra": spectra.marks, "noise": noise.marks}
        assert passes == pytest.approx(spectra.passes)
        assert sent == (spectra.sums, pytest.approx(spectra.sums * spectra.sum_bytes))


@pytest.mark.parametrize(("workers", "least"), [(2, 1.99), (4, 3.9), (8, 7.8)])
def test_learning_spectra_divides_over_as_many_workers_as_a_batch_has_ghosts(workers, least):
    config = configure("texture-learned", "toys", preset="paper", file={}, overrides=[]).method
    cut = Partition(50_000, 64)
    members = [cut.ids(shard) for shard in range(cut.count)]
    schedule = Schedule(members, config.ghost, config.batch, 1, "texture spectra")
    assert slow_busiest(schedule, workers) < 50_000 / least
    alone, shared = (
        find("texture-learned").work(config, extent_of(ToySource(50_000, (1, 2, 2)), 64, ranks)).phases
        for ranks in (1, workers)
    )
    for one, other in zip(alone, shared, strict=True):
        assert other.passes < one.passes / least


@pytest.mark.parametrize(
    ("workers", "steps", "ranks", "ghosts"),
    [(1, 30, 1, 4), (2, 20, 1, 4), (3, 10, 1, 4), (8, 10, 2, 2), (24, 10, 8, 1)],
)
def test_uc_shares_out_clusters_first_then_batches(workers, steps, ranks, ghosts):
    config = settings_of("uc", clusters=3, batch=40, ghost=10, steps=10)
    generators = find("uc").work(config, extent_of(ToySource(240), 24, workers)).phases[-1]
    assert (generators.marks, generators.ranks) == (steps, ranks)
    assert generators.passes == pytest.approx(steps * ghosts * 10)
    assert generators.sums == (2 * steps if ranks > 1 else 0)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("workers", [1, 5, 4096])
def test_a_hundred_million_samples_are_counted_at_once(name, workers):
    config = configure(name, "toys", preset=None, file={}, overrides=[]).method
    extent = Extent(
        samples=10**8, shards=60_000, shape=(3, 32, 32), classes=1000, levels=255, workers=workers, exact=False
    )
    work = find(name).work(config, extent)
    assert extent.own_shards == math.ceil(60_000 / workers)
    for phase in work.phases:
        assert phase.busy <= workers
        assert phase.passes >= 0
        assert np.isfinite([phase.passes, phase.calls, phase.sum_bytes]).all()
    own = 4 * 1000 if name == "pil" else 2 * 3 * 32 * 32 if name == "em" else 0
    held = work.memory - own * extent.own_samples
    assert held >= 8 * extent.own_samples
    sharing = workers // min(workers, config.clusters) if name == "uc" else workers
    ghosts = LINE_BYTES * extent.samples / config.ghost
    assert held <= 32 * extent.samples / sharing + ghosts, "no worker holds the ids of all samples"


@pytest.mark.parametrize("name", COUNTED)
def test_a_trial_is_shorter_and_its_own_trial(name):
    config = configure(name, "toys", preset=None, file={}, overrides=[]).method
    trial = find(name).trial(config, 64, 2)
    extent = extent_of(ToySource(240), 8, 2)
    passes = [sum(p.passes for p in find(name).work(c, extent).phases) for c in (config, trial)]
    assert passes[1] < passes[0] or not find(name).facts.needs_surrogate
    assert find(name).trial(trial, 64, 2) == trial
