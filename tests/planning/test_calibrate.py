import dataclasses
import itertools

import pytest

from hpcule.config.tree import to_tree
from hpcule.craft.table import configure, find
from hpcule.craft.work import Extent
from hpcule.planning.calibrate import Observation, calibration_of, fit_seconds

SECONDS = {"surrogate": (3e-6, 4e-4), "noise": (7e-6, 2e-5)}
"""A pass and a call of each stage, as the runs below take them."""
SUM, ONCE = 5e-4, 0.25


def test_a_pass_and_a_call_are_told_apart():
    rows = [Observation(p, c, 0.002 * p + 0.1 * c) for p, c in ((100, 4), (100, 8), (800, 8))]
    assert fit_seconds(rows) == pytest.approx((0.002, 0.1))


def test_neither_is_below_nothing():
    assert fit_seconds([Observation(100, 1, 1.0), Observation(200, 2, 1.0)])[1] >= 0
    faster = [Observation(100, 10, 1.0), Observation(200, 1, 1.0)]
    assert min(fit_seconds(faster)) >= 0
    assert fit_seconds([]) == fit_seconds([Observation(5, 5, 0.0)]) == (0.0, 0.0)


def make_run(config, samples, shards, batch, workers=2):
    """What a craft that takes exactly the seconds above would leave: a summary and rank 0's journal."""
    method = find("pil")
    short = method.trial(config.method, batch, workers)
    extent = Extent(samples=samples, shards=shards, shape=(3, 8, 8), classes=4, levels=255, workers=workers)
    marks, craft, waited, sums = [], 0.0, 0.0, 0
    for phase in method.work(short, extent).phases:
        each, call = SECONDS[phase.stage]
        for number in range(phase.marks):
            waited += phase.sums / phase.marks * SUM
            sums += phase.sums // phase.marks
            craft += (phase.passes * each + phase.calls * call + phase.sums * SUM) / phase.marks + ONCE * (number == 0)
            mark = {"stage": phase.stage, "craft_seconds": craft, "collectives": sums, "collective_seconds": waited}
            marks.append(mark)
    return {
        "settings": to_tree(short),
        "extent": dataclasses.asdict(extent),
        "marks": marks,
        "read_seconds": 1e-5 * extent.own_samples,
        "craft_seconds": craft,
        "write_seconds": 0.01 * extent.own_shards,
        "finish_seconds": 0.002 * shards,
        "run_seconds": 1e-5 * extent.own_samples + craft + 0.01 * extent.own_shards + 0.002 * shards + 1.5,
        "communication_seconds": waited,
        "peak_memory_mebibytes": 300,
    }


def test_what_runs_were_made_of_is_found_again():
    config = configure("pil", "toys", preset=None, file={}, overrides=["method.ghost=10"])
    runs = [make_run(config, *sizes) for sizes in ((160, 8, 80), (80, 8, 20), (640, 32, 80))]
    found = calibration_of(config, runs)
    for rate in found["rates"]:
        assert (rate.pass_seconds, rate.call_seconds) == pytest.approx(SECONDS[rate.stage], rel=0.02)
        assert rate.once_seconds == pytest.approx(ONCE, rel=0.02)
    assert found["rates"][0].sum_seconds == pytest.approx(SUM)
    assert found["rates"][1].sum_seconds == 0
    assert found["read_sample_seconds"] == pytest.approx(1e-5)
    assert found["write_shard_seconds"] == pytest.approx(0.01)
    assert found["finish_shard_seconds"] == pytest.approx(0.002)
    assert found["prepare_seconds"] == pytest.approx(1.5)
    assert found["wait_share"] == found["step_seconds"] == pytest.approx(0)
    assert 299 * 2**20 < found["base_bytes"] < 300 * 2**20


def test_waiting_between_steps_is_a_share_of_crafting_and_so_long_a_step():
    config = configure("pil", "toys", preset=None, file={}, overrides=["method.ghost=10"])
    runs = [make_run(config, *sizes) for sizes in ((160, 8, 80), (80, 8, 20), (640, 32, 80))]
    for run in runs:
        run["communication_seconds"] += run["craft_seconds"] / 10 + 0.02 * len(run["marks"])
    found = calibration_of(config, runs)
    assert (found["wait_share"], found["step_seconds"]) == pytest.approx((0.1, 0.02))


def test_what_a_new_generator_takes_is_told_from_what_comes_once():
    """UC with one step a cluster that is longer, the first of all most of all."""
    config = configure("uc", "toys", preset=None, file={}, overrides=["method.ghost=10", "method.batch=20"])
    runs = []
    for samples, shards in ((160, 8), (80, 8)):
        run = make_run(configure("pil", "toys", preset=None, file={}, overrides=[]), samples, shards, 20)
        short = find("uc").trial(config.method, 20, 2)
        assert short.clusters == 4
        seconds = [1.75, 0.25, 0.25, 0.75, 0.25, 0.25]
        stages = ["features"] * 4 + ["clusters"] + ["generators"] * 6
        times = itertools.accumulate([0.1] * 5 + seconds)
        marks = [
            {"stage": s, "craft_seconds": t, "collectives": 0, "collective_seconds": 0.0}
            for s, t in zip(stages, times, strict=True)
        ]
        runs.append({**run, "settings": to_tree(short), "marks": marks})
    generators = calibration_of(config, runs)["rates"][-1]
    assert (generators.start_seconds, generators.once_seconds) == pytest.approx((0.5, 1.0))
