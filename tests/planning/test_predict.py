import dataclasses
import math

import pytest

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure, find
from hpcule.craft.work import Extent
from hpcule.planning.calibrate import Calibration, Rate
from hpcule.planning.machine import Machine
from hpcule.planning.predict import predict, sum_seconds
from hpcule.planning.trial import store_bytes
from hpcule.store.vault import Vault

STAGES = ("surrogate", "noise", "model", "round", "features", "clusters", "generators", "spectra")


def make_calibration(workers=2, device="cpu", **changes):
    rates = tuple(
        Rate(stage=stage, pass_seconds=1e-4, call_seconds=1e-3, sum_seconds=2e-4, start_seconds=0.0, once_seconds=0.5)
        for stage in STAGES
    )
    known = Calibration(
        hpcule="0",
        settings={},
        workers=workers,
        threads=1,
        cores=2,
        device=device,
        start_seconds=4.0,
        prepare_seconds=0.5,
        wait_share=0.0,
        step_seconds=0.0,
        read_sample_seconds=1e-6,
        read_shard_seconds=1e-4,
        write_byte_seconds=1e-9,
        write_shard_seconds=1e-2,
        finish_shard_seconds=1e-3,
        base_bytes=3e8,
        rates=rates,
        measured_seconds=10.0,
        load=0.0,
    )
    return dataclasses.replace(known, **changes)


def configured(name="pil", *overrides):
    return configure(name, "toys", preset=None, file={}, overrides=list(overrides))


def extent_of(workers, samples=50_000, shards=64, shape=(3, 32, 32), classes=10):
    return Extent(samples=samples, shards=shards, shape=shape, classes=classes, levels=255, workers=workers)


def machine(nodes=1, local=2, **more):
    return Machine(name="here", nodes=nodes, workers_per_node=local, **more)


def test_wall_time_is_the_sum_of_its_parts():
    plan = predict(configured(), extent_of(2), machine(), make_calibration())
    # 30 epochs of 97 batches of four ghosts of 112 samples and a part of a fifth one, of which the other rank has two,
    # and a last batch of three.
    ghost = 50_000 / 64 / 7
    busiest = 97 * (512 - 2 * ghost) + 2 * ghost
    surrogate = 30 * busiest * 1e-4 + 30 * 98 * 1e-3 + 0.5
    tiles = 32 * math.ceil(50_000 / 64 / 128)
    noise = 30 * 25_000 * 1e-4 + 30 * tiles * 1e-3 + 0.5
    assert plan.stages[0].compute_seconds == pytest.approx(surrogate)
    assert plan.stages[0].communication_seconds == pytest.approx(30 * 98 * 2e-4)
    assert plan.stages[1].compute_seconds == pytest.approx(noise)
    assert plan.craft_seconds == pytest.approx(surrogate + noise + 30 * 98 * 2e-4)
    delta = 50_000 * (3072 + 16)
    storage = 25_000 * 1e-6 + 32 * 1e-4 + delta / 2 * 1e-9 + 32 * 1e-2 + 64 * 1e-3
    # A checkpoint of W1, W2 and their momenta comes every two minutes.
    storage += int(plan.craft_seconds / 120) * 2 * 4 * (10 * 3072 + 100) / 2 * 1e-9
    assert plan.storage_seconds == pytest.approx(storage)
    assert plan.wall_seconds == pytest.approx(4.5 + plan.craft_seconds + storage)
    assert plan.node_hours == pytest.approx(plan.wall_seconds / 3600)
    assert plan.worker_hours == pytest.approx(plan.wall_seconds / 1800)
    assert plan.store_bytes == delta
    assert plan.traffic_bytes == pytest.approx(30 * 98 * 4 * (30_720 + 100))


def test_ranks_that_wait_for_each_other_take_longer():
    plain = predict(configured(), extent_of(2), machine(), make_calibration())
    late = predict(configured(), extent_of(2), machine(), make_calibration(wait_share=0.1, step_seconds=0.2))
    # 30 epochs, and 32 shards of the busiest rank.
    assert late.wall_seconds == pytest.approx(plain.wall_seconds + 0.1 * plain.craft_seconds + 0.2 * (30 + 32))
    assert late.craft_seconds == plain.craft_seconds


def slow_tree(ranks, size, latency, bandwidth):
    """Level by level up, and the same way down."""
    levels = 0
    while 2**levels < ranks:
        levels += 1
    return sum(latency + size / bandwidth for _ in range(2 * levels))


def slow_ring(ranks, size, latency, bandwidth):
    """Two rounds of ranks - 1 steps, each with a ranks-th of the tensor."""
    return sum(latency + size / ranks / bandwidth for _ in range(2 * (ranks - 1)))


@pytest.mark.parametrize("ranks", [2, 3, 8, 4096])
@pytest.mark.parametrize("size", [24, 2**20, 2**20 + 4, 4e8])
def test_sums_over_nodes_are_trees_and_rings(ranks, size):
    there = machine(nodes=ranks, local=1, latency_microseconds=30, gigabytes_per_second=5)
    tree, ring = (slow(ranks, size, 30e-6, 5e9) for slow in (slow_tree, slow_ring))
    assert sum_seconds(ranks, size, there, "cpu") == pytest.approx(tree if size <= 2**20 else ring)
    assert sum_seconds(ranks, size, there, "cuda") == pytest.approx(min(tree, ring))
    assert sum_seconds(1, size, there, "cpu") == 0


def compute_seconds(plan):
    return sum(stage.compute_seconds for stage in plan.stages)


@pytest.mark.parametrize("name", ["em", "pil", "uc"])
def test_four_thousand_workers_and_a_hundred_million_images(name):
    config = configured(name)
    extent = extent_of(4096, samples=10**8, shards=56_076, shape=(3, 224, 224), classes=1000)
    plan = predict(config, extent, machine(1024, 4), make_calibration(4, "cuda"))
    alone = predict(config, dataclasses.replace(extent, workers=1), machine(1, 1), make_calibration(1, "cuda"))
    assert 0 < compute_seconds(plan) < compute_seconds(alone)
    assert plan.node_hours == pytest.approx(plan.wall_seconds * 1024 / 3600)
    values = 3 * 224 * 224
    method = find(name)
    deltas = 10 if name == "uc" else 10**8
    # Ids, and labels or groups.
    numbers = 16 * 10**8
    budget = method.budget(config.method, (3, 224, 224), 255)
    item = 1 if method.facts.bounded and budget.norm == "linf" and not budget.free_pixels else 2
    assert plan.store_bytes == numbers + values * deltas * item
    assert any("workers have work" in line for line in plan.limits)
    assert plan.memory_bytes > 8 * 10**8


def test_the_store_is_as_large_as_a_real_one_says(tmp_path, alone):
    import toys

    from hpcule.craft.run import craft
    from hpcule.world.signals import StopFlag

    source = toys.ToySource(240)
    config = configured("pil", "method.epochs=1", "method.steps=1", "store.shards=2")
    craft(config, source, Vault(tmp_path / "store"), alone, StopFlag(), resume=False, report=lambda step: None)
    real = sum(path.stat().st_size for path in (tmp_path / "store" / "shards").iterdir())
    extent = extent_of(1, samples=240, shards=2, shape=(3, 8, 8), classes=3)
    planned = store_bytes(config, extent, 0)
    assert planned <= real <= planned + 2 * 16_384, "HDF5 adds some kilobytes a file"


def limits_of(config, extent, place, calibration):
    return " | ".join(predict(config, extent, place, calibration).limits)


def test_limits_are_noticed():
    assert not predict(configured(), extent_of(2), machine(), make_calibration()).limits
    idle = limits_of(configured(), extent_of(8), machine(1, 8), make_calibration(8))
    assert "surrogate: at most 5 of 8 workers have work in a step" in idle
    crowded = limits_of(configured(), extent_of(4), machine(1, 4), make_calibration(2))
    assert "measured with 2 workers on 2 cores" in crowded
    assert "do not divide" not in limits_of(configured(), extent_of(3), machine(3, 1), make_calibration(1))
    uneven = limits_of(configured(), extent_of(3, shards=7), machine(3, 1), make_calibration(1))
    assert "7 shards do not divide among 3 workers: some own 3, others 2" in uneven
    few = limits_of(configured("pil", "store.shards=4"), extent_of(8, shards=8), machine(1, 8), make_calibration(8))
    assert "a run would refuse 8 workers for 4 shards" in few
    short = limits_of(configured(), extent_of(1), machine(1, 1, limit_minutes=2), make_calibration(1))
    assert "jobs of 2 minutes" in short
    rounds = limits_of(configured("em"), extent_of(1), machine(1, 1), make_calibration(1))
    assert "30 rounds (method.max_rounds) are the most there can be" in rounds


def test_what_a_study_keeps_is_counted_once():
    config, extent = configured("uc"), extent_of(2)
    first = predict(config, extent, machine(), make_calibration())
    next_one = predict(config, extent, machine(), make_calibration(), features_kept=True)
    assert [stage.stage for stage in first.stages] == ["features", *(stage.stage for stage in next_one.stages)]
    assert next_one.craft_seconds < first.craft_seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, "0 nodes with 2 workers each: at least 1 of both"),
        ({"local": 0}, "1 nodes with 0 workers each"),
        ({"nodes": 10**6}, "at most 1,000,000 workers"),
        ({"latency_microseconds": -1}, "the latency must be at least 0"),
        ({"gigabytes_per_second": 0}, "the bandwidth above 0"),
        ({"gigabytes_per_second": math.nan}, "the bandwidth above 0"),
    ],
)
def test_impossible_machines(arguments, message):
    with pytest.raises(UsageError, match=message):
        machine(**arguments)
