"""What victims of a study are trained on, and on how many ranks."""

import dataclasses
import json
import os
import signal
from importlib.util import find_spec

import numpy as np
import pytest
from pool import Pool
from toys import ToySource, alone

from hpcule.config.errors import PeerLostError, StoppedError, StoreError, UsageError, WorkerError
from hpcule.config.tree import build_config
from hpcule.craft.run import craft
from hpcule.craft.table import configure
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudySamples, expand
from hpcule.study.items import do_victims, open_samples, planned_store, require_ranks, run_all, samples_of
from hpcule.victim import keeper
from hpcule.victim.kinds import noise_basis, random_noise
from hpcule.victim.single import TrainConfig, train
from hpcule.world.signals import StopFlag


@pytest.mark.parametrize(
    ("method", "unit", "norm"),
    [("classwise", "class", "linf"), ("lsp", "sample", "l2"), ("ops", "sample", "l0"), ("ar", "sample", "l2")],
)
def test_random_noise_is_the_same_before_the_craft_and_after(tmp_path, method, unit, norm):
    source = ToySource(60, (3, 32, 32))
    config = configure(method, "toys", preset="smoke", file={}, overrides=["seed=3"])
    craft(config, source, Vault(tmp_path / "store"), alone(), StopFlag(), resume=True, report=lambda step: None)
    store, planned = StoreReader(Vault(tmp_path / "store")), planned_store(config, source)
    assert (store.manifest.unit, store.manifest.norm) == (unit, norm)
    assert noise_basis(unit, store.manifest.budget, store.manifest.levels)
    ids = np.arange(60)
    noisy, same = (random_noise(given, 7, source)(ids, source.samples) for given in (store, planned))
    assert (noisy != source.samples).any()
    np.testing.assert_array_equal(noisy, same)


STUDY = {
    "name": "toys",
    "method": "classwise",
    "preset": "smoke",
    "craft": {"store": {"shards": 4}},
    "seeds": [3],
    "world": {"threads": 1},
}
VICTIM = {"network": "convnet", "epochs": 2, "batch": 17, "learning_rate": 0.05}


def begin(path, victim, **settings):
    """A study on toys, in a folder that is begun."""
    arrays = {}
    for split, n, seed in (("train", 60, 0), ("test", 31, 1)):
        source = ToySource(n, seed=seed)
        arrays[f"{split}_images"] = source.samples.transpose(0, 2, 3, 1)
        arrays[f"{split}_labels"] = source.labels[:, None]
    np.savez(path / "toys.npz", **arrays)
    data = str(path / "toys.npz")
    config = build_config(StudyConfig, {**STUDY, "data": data, "victim": {**VICTIM, **victim}, **settings})
    folder = StudyFolder(path / "study")
    folder.begin(config, {data: samples_of(*open_samples(config))})
    return folder


def opened(path):
    folder = StudyFolder(path / "study")
    return folder, folder.config(), expand(folder.config(), folder.samples())


def quietly(*progress):
    pass


def do_all(world, path):
    folder, config, grid = opened(path)
    run_all(folder, config, grid, world, quietly)


def results(path):
    """Results of a study's victims, by kind, number of workers and learning rate."""
    folder, _, grid = opened(path)
    found = {key: folder.victim_result(key) for key in grid.victims}
    return {
        (victim.job.kind, victim.workers, victim.job.config.learning_rate): found[key]
        for key, victim in grid.victims.items()
        if found[key]
    }


def train_jointly(world, path, protected):
    """What `hpcule train` with these ranks and the settings of the study's victims says."""
    folder, config, grid = opened(path)
    source, test = open_samples(config)
    (key,) = grid.crafts
    store = StoreReader(Vault(folder.store(key))) if protected else None
    settings = TrainConfig(victim=config.victim.training, seed=3, world=config.world)
    return train(settings, source, test, store, path / f"train-{protected}", world, quietly)


def compare_with_training(ranks, path, **victim):
    """Train joint victims, and compare them with `hpcule train` on the same ranks, to the last digit."""
    begin(path, {"workers": 2, **victim})
    ranks.run(do_all, path)
    found = results(path)
    assert len(found) == 3
    for kind, protected in (("clean", False), ("protected", True)):
        own = found[kind, 2, 0.05]
        expected, _ = ranks.run(train_jointly, path, protected)
        assert expected["workers"] == own["workers"] == 2
        for name in ("curve", "last", "best", "steps", "samples_seen", "batch_taken"):
            assert own[name] == expected[name]


def test_a_joint_victim_is_that_of_a_training_on_as_many_ranks(pool, tmp_path):
    compare_with_training(pool, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason='DeepSpeed is missing: pip install "hpcule[deepspeed]"')
def test_deepspeed_trains_one_joint_victim_after_the_other(tmp_path):
    with Pool(2) as ranks:  # DeepSpeed leaves groups and settings behind
        compare_with_training(ranks, tmp_path, engine="deepspeed", zero=2)


def stop_after_an_epoch(world, path):
    """Rank 1 gets a signal in the first victim; ranks agree after every step here. The stages that were reported."""
    folder, config, grid = opened(path)
    seen = []

    def report(stage, done, total):
        seen.append(stage)
        if world.rank == 1 and (stage, done) == ("victims 1/3", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "stop_flag", StopFlag)
        patch.setattr(keeper, "AGREEMENT_SECONDS", 0.0)
        with pytest.raises(StoppedError, match="saved: run the same command again to continue"):
            run_all(folder, config, grid, world, report)
    return seen


def test_a_joint_victim_that_is_stopped_goes_on(pool, tmp_path):
    for name in ("undisturbed", "stopped"):
        (tmp_path / name).mkdir()
        begin(tmp_path / name, {"workers": 2})
    pool.run(do_all, tmp_path / "undisturbed")
    path = tmp_path / "stopped"
    for seen in pool.run(stop_after_an_epoch, path):
        assert [stage for stage in seen if stage.startswith("victims")] == ["victims 1/3"]
    assert len(list((path / "study" / "done").glob("*.checkpoint"))) == 1
    pool.run(do_all, path)
    assert not list((path / "study" / "done").glob("*.checkpoint"))
    expected = results(tmp_path / "undisturbed")
    assert {name: result["curve"] for name, result in results(path).items()} == {
        name: result["curve"] for name, result in expected.items()
    }


def test_a_joint_victim_that_diverges_keeps_no_other_from_its_end(pool, tmp_path):
    folder = begin(tmp_path, {"workers": 2}, factors={"victim.learning_rate": [1e30, 0.05]})
    with pytest.raises(WorkerError, match=r"3 of 6 victims failed, the first: .*2 workers.*: the victim diverged"):
        pool.run(do_all, tmp_path)
    assert {rate for _, _, rate in results(tmp_path)} == {0.05}
    failed = [json.loads(path.read_text())["error"] for path in (folder.path / "failed").iterdir()]
    assert failed == ["the victim diverged: lower victim.learning_rate"] * 3


def do_without_stores(world, path):
    """Rank 1 finds no stores, as where its node has lost a file system."""
    folder, config, grid = opened(path)
    own = folder if world.leads else StudyFolder(path / "elsewhere")
    do_victims(own, config, list(grid.victims.values()), world, quietly)


@pytest.mark.slow
def test_a_failure_of_one_rank_ends_the_run_and_is_noted(tmp_path):
    folder = begin(tmp_path, {"workers": 2})
    with Pool(2) as ranks:
        ranks.run(do_all, tmp_path)
        for path in (folder.path / "done").iterdir():
            if json.loads(path.read_text()).get("role") in ("protected", "clean"):
                path.unlink()
        (tmp_path / "elsewhere").mkdir()
        for name in ("done", "running", "failed"):
            (tmp_path / "elsewhere" / name).symlink_to(folder.path / name, target_is_directory=True)
        with pytest.raises(StoreError, match="elsewhere"):
            ranks.run(do_without_stores, tmp_path)
    (failed,) = (folder.path / "failed").iterdir()
    assert "elsewhere" in json.loads(failed.read_text())["error"]
    assert set(results(tmp_path)) == {("noise", 2, 0.05)}


def die_after_an_epoch(world, path):
    """Rank 1 is killed in the first victim, whose state is saved after every step."""
    folder, config, grid = opened(path)

    def report(stage, done, total):
        if world.rank == 1 and (stage, done) == ("victims 1/3", 1):
            os.kill(os.getpid(), signal.SIGKILL)

    keeper.AGREEMENT_SECONDS = 0.0
    run_all(folder, config, grid, dataclasses.replace(world, checkpoint_seconds=0), report)


@pytest.mark.slow
def test_a_joint_victim_that_is_killed_goes_on(tmp_path):
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        begin(tmp_path / name, {"workers": 2})
    with Pool(2) as ranks:
        ranks.run(do_all, tmp_path / "undisturbed")
        with pytest.raises((PeerLostError, RuntimeError)):
            ranks.run(die_after_an_epoch, tmp_path / "killed")
        assert len(list((tmp_path / "killed" / "study" / "done").glob("*.checkpoint"))) == 1
        ranks.run(do_all, tmp_path / "killed")
    expected = results(tmp_path / "undisturbed")
    assert {name: result["curve"] for name, result in results(tmp_path / "killed").items()} == {
        name: result["curve"] for name, result in expected.items()
    }


@pytest.mark.slow
def test_groups_of_ranks_train_side_by_side_what_as_many_ranks_train_alone(pool, tmp_path):
    for name in ("four", "two"):
        (tmp_path / name).mkdir()
        begin(tmp_path / name, {"epochs": 1}, factors={"victim.workers": [1, 2]})
    with Pool(4) as ranks:
        ranks.run(do_all, tmp_path / "four")
    pool.run(do_all, tmp_path / "two")
    four, two = results(tmp_path / "four"), results(tmp_path / "two")
    assert len(four) == 6
    assert {name: result["curve"] for name, result in four.items()} == {
        name: result["curve"] for name, result in two.items()
    }
    assert {(workers, result["workers"]) for (_, workers, _), result in four.items()} == {(1, 1), (2, 2)}


@pytest.mark.parametrize(
    ("settings", "ranks", "message"),
    [
        (
            {"victim": {"workers": 2}},
            1,
            r"^victim.workers=2 trains .* 1 is no multiple of 2; start 2 \(--workers 2\)",
        ),
        ({"victim": {"workers": 2}}, 3, r"3 is no multiple of 2; start 2"),
        (
            {"factors": {"victim.workers": [1, 2, 3]}},
            4,
            r"4 is no multiple of 3; start 6 .*, or a multiple",
        ),
        (
            {"victim": {"workers": 2, "engine": "deepspeed"}},
            4,
            r"on all ranks of a run, here 4, and victim.workers=2; start 2 .*victim.engine=ddp",
        ),
        ({"victim": {"engine": "deepspeed"}}, 2, r"here 2, and victim.workers=1; start 1"),
        (
            {"victim": {"engine": "deepspeed"}, "factors": {"victim.workers": [1, 2]}},
            2,
            r"here 2, and victim.workers=1; submit the study, .*, or set victim.engine=ddp",
        ),
    ],
)
def test_ranks_that_cannot_train_the_victims_are_refused(settings, ranks, message):
    config = build_config(StudyConfig, {**STUDY, "data": "toys", **settings})
    victims = list(expand(config, {"toys": StudySamples(1000, training="a", test="b")}).victims.values())
    with pytest.raises(UsageError, match=message):
        require_ranks(victims, ranks)


@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ({}, 3),
        ({"victim": {"workers": 2}}, 4),
        ({"factors": {"victim.workers": [1, 2, 3]}}, 12),
        ({"victim": {"workers": 2, "engine": "deepspeed"}}, 2),
    ],
)
def test_whole_groups_of_ranks_train_the_victims(settings, ranks):
    config = build_config(StudyConfig, {**STUDY, "data": "toys", **settings})
    require_ranks(list(expand(config, {"toys": StudySamples(1000, training="a", test="b")}).victims.values()), ranks)
