"""Timed crafts and what is extrapolated from them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.craft.table import METHODS, configure, find
from hpcule.craft.work import Extent
from hpcule.planning import timed
from hpcule.planning.machine import Machine
from hpcule.planning.measurements import Measurements
from hpcule.planning.timed import TimedRun, TimedStage, Timing, extrapolate, stages_of, timing_settings
from hpcule.report.plan_table import print_craft

COUNTED = {"em", "pil", "uc", "texture-learned"}


def marks(*rows):
    names = ("stage", "done", "total", "craft_seconds", "collective_seconds")
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_methods_with_a_closed_form():
    extent = Extent(samples=1000, shards=8, shape=(3, 32, 32), classes=10, levels=255, workers=2)
    configs = {name: configure(name, "toys", preset=None, file={}, overrides=[]).method for name in METHODS}
    assert {name for name in METHODS if find(name).work(configs[name], extent) is not None} == COUNTED


def test_a_finished_run_is_as_long_as_it_was():
    rows = marks(("surrogate", 1, 2, 3.0, 0.5), ("surrogate", 2, 2, 5.0, 1.0), ("noise", 1, 1, 9.0, 1.0))
    assert list(stages_of(rows, complete=True)) == [
        TimedStage(stage="surrogate", seconds=5.0, collective_seconds=1.0),
        TimedStage(stage="noise", seconds=4.0, collective_seconds=0.0),
    ]


def test_a_stage_that_was_cut_off_is_as_long_as_all_its_steps():
    rows = marks(("surrogate", 2, 2, 5.0, 1.0), ("noise", 1, 8, 6.0, 1.0), ("noise", 2, 8, 7.0, 1.5))
    (_, noise) = stages_of(rows, complete=False)
    assert noise == TimedStage(stage="noise", seconds=2.0 * 8 / 2, collective_seconds=0.5 * 8 / 2)
    assert not list(stages_of([], complete=False))


def test_a_stage_that_begins_again_belongs_to_the_loop_around_it():
    rows = marks(
        ("noise", 1, 2, 1.0, 0.0), ("noise", 2, 2, 2.0, 0.0), ("round", 1, 10, 3.0, 0.5),
        ("noise", 1, 2, 4.0, 0.5), ("noise", 2, 2, 5.0, 0.5), ("round", 2, 10, 6.0, 1.0),
    )  # fmt: skip
    assert list(stages_of(rows, complete=False)) == [TimedStage(stage="round", seconds=30.0, collective_seconds=5.0)]


def make_run(samples, seconds, complete=True):
    stages = (
        TimedStage(stage="search", seconds=seconds / 4, collective_seconds=0.0),
        TimedStage(stage="noise", seconds=3 * seconds / 4, collective_seconds=seconds / 4),
    )
    return TimedRun(samples=samples, complete=complete, stages=stages, storage_seconds=0.5, peak_bytes=1e8)


def make_timing(*runs, **changes):
    plain = Timing(
        hpcule="0", settings={}, workers=2, cores=2, start_seconds=4.0, measured_seconds=9.0, load=0.0, threads=1,
        device="cpu", runs=runs,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def test_two_sizes_tell_what_is_fixed_from_what_grows():
    timing = make_timing(make_run(100, 3.0 + 0.02 * 100), make_run(500, 3.0 + 0.02 * 500))
    assert timing.craft_seconds(10_000) == pytest.approx(3.0 + 0.02 * 10_000)


@pytest.mark.parametrize(
    "runs",
    [
        [make_run(500, 10.0)],
        # More than in proportion, or less than nothing for a sample: the larger run alone decides.
        [make_run(100, 1.0), make_run(500, 10.0)],
        [make_run(100, 11.0), make_run(500, 10.0)],
        [make_run(100, 2.5), make_run(500, 10.0, complete=False)],
    ],
)
def test_otherwise_the_larger_run_is_scaled(runs):
    assert make_timing(*runs).craft_seconds(5_000) == pytest.approx(100.0)


def configured(name="hypo", *overrides):
    return configure(name, "toys", preset=None, file={}, overrides=list(overrides))


def test_a_plan_is_the_sum_of_its_parts():
    timing = make_timing(make_run(500, 10.0))
    machine = Machine(name="there", nodes=4, workers_per_node=2)
    extent = Extent(samples=50_000, shards=64, shape=(3, 32, 32), classes=10, levels=255, workers=8)
    plan = extrapolate(configured(), extent, 0, machine, timing)
    assert plan.craft_seconds == pytest.approx(10.0 * 100 * 2 / 8)
    assert sum(stage.compute_seconds + stage.communication_seconds for stage in plan.stages) == plan.craft_seconds
    assert plan.stages[1].communication_seconds == pytest.approx(plan.craft_seconds / 4)
    assert plan.storage_seconds == pytest.approx(0.5 * (50_000 / 8) / (500 / 2))
    assert plan.wall_seconds == pytest.approx(4.0 + plan.craft_seconds + plan.storage_seconds)
    assert plan.node_hours == pytest.approx(plan.wall_seconds * 4 / 3600)
    assert plan.store_bytes == 50_000 * (3072 + 16)
    assert plan.traffic_bytes is None
    assert plan.memory_bytes == 1e8 + 6250 * 3072 + 50_000 + plan.store_bytes / 8
    assert not plan.lower_bound
    assert "extrapolated from crafts of 500 samples by 2 worker(s)" in plan.limits[0]
    assert "the work is taken to divide evenly" in plan.limits[-1]


def test_workers_without_a_shard_do_not_help():
    machine = Machine(name="there", nodes=64, workers_per_node=2)
    extent = Extent(samples=50_000, shards=64, shape=(3, 32, 32), classes=10, levels=255, workers=128)
    plan = extrapolate(configured(), extent, 0, machine, make_timing(make_run(500, 10.0)))
    assert plan.craft_seconds == pytest.approx(10.0 * 100 * 2 / 64)


def test_a_run_that_was_cut_off_is_a_lower_bound():
    machine = Machine(name="here", nodes=1, workers_per_node=2)
    extent = Extent(samples=1000, shards=8, shape=(3, 8, 8), classes=3, levels=255, workers=2)
    plan = extrapolate(configured(), extent, 0, machine, make_timing(make_run(500, 10.0, complete=False)))
    assert plan.lower_bound
    assert any(line.startswith("at least: ") for line in plan.limits)


def test_a_timing_is_kept_in_a_file_and_found_by_its_settings(tmp_path):
    source, config = ToySource(60), configured("ops")
    timing = make_timing(make_run(60, 1.0), settings=timing_settings(config, source))
    Measurements(print, timings=[timing]).write(tmp_path / "known.json")
    known = Measurements.read(tmp_path / "known.json", print)
    assert known.timing(config, source, 2) == timing
    assert known.timing(configured("ops", "seed=3", "store.shards=2"), source, 2) == timing
    with pytest.raises(UsageError, match=r"was measured with method\.pixels 1, not 3"):
        known.timing(configured("ops", "method.pixels=3"), source, 2)


@pytest.mark.slow
def test_real_crafts_are_timed_and_one_that_takes_too_long_is_killed(tmp_path, monkeypatch, small_digits):
    config, source = small_digits
    timing = timed.time_craft(config, source, 1, tmp_path / "whole")
    assert timing.complete
    assert timing.runs[0].samples == 64
    assert timing.runs[-1].samples <= len(source)
    assert [stage.stage for stage in timing.runs[-1].stages] == ["search", "noise"]
    assert timing.craft_seconds(1000) > 0
    # A surrogate's 40 epochs come before the first step that could be noted.
    config = configure("hypo", "digits", preset=None, file={}, overrides=["world.threads=1"])
    monkeypatch.setattr(timed, "TRIAL_SECONDS", 0.2)
    killed = timed.time_craft(config, source, 1, tmp_path / "killed")
    assert not killed.complete
    (run,) = killed.runs
    assert [(stage.stage, stage.seconds) for stage in run.stages] == [("first step", 0.2)]


@pytest.fixture
def small_digits():
    overrides = ["world.threads=1"]
    config = configure("ops", "digits", preset=None, file={}, overrides=overrides)
    return config, config.source("digits")


def test_plans_without_traffic_can_be_written_and_printed(capsys):
    machine = Machine(name="here", nodes=1, workers_per_node=2)
    extent = Extent(samples=1000, shards=8, shape=(3, 8, 8), classes=3, levels=255, workers=2)
    plan = extrapolate(configured(), extent, 0, machine, make_timing(make_run(500, 10.0, complete=False)))
    json.dumps(plan.document())
    print_craft("craft hypo", [plan], {})
    printed = capsys.readouterr().out
    assert "at least 25.0 s" in printed
    assert "not known" in printed
