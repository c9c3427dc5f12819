"""Trainings that are stopped and go on: they end as if nobody had disturbed them."""

from __future__ import annotations

import signal
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.config.errors import StoppedError, StoreError
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.nets.seeded import seeded_weights
from hpcule.victim import keeper, linear_layer, supervised, testing
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.victim.training import train_victim
from hpcule.world.signals import StopFlag

RESIDENT = 2**30
SETTINGS = {"network": "convnet", "epochs": 3, "batch": 16, "learning_rate": 0.05, "precision": "fp32"}
KINDS = {
    "plain": {},
    "cut short": {"steps": 8},
    "augmented": {"countermeasures": "crop-flip+ueraser+cutout-50"},
    "mixed": {"countermeasures": "mixup+cutmix"},
    # Its network evaluates within a step, by the running statistics of each rank.
    "adversarial": {"countermeasures": "adversarial-4"},
    "projected": {"countermeasures": "projection"},
    "fixmatch": {"countermeasures": "fixmatch-4"},
    "fast": {"network": "fast", "average_weights": True, "schedule": "triangular", "label_smoothing": 0.2},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "lars": {"optimizer": "lars", "learning_rate": 1.0},
    "lamb": {"optimizer": "lamb", "learning_rate": 0.01},
    "noisy weights": {"weight_noise": 0.01, "weight_noise_draws": 2},
    "measured": {"micro_batch": 4, "noise_scale_every": 2, "target": 0.9, "evaluate_every": 2},
    "refitted": {"countermeasures": "crop-flip+dfr"},
    "simclr": {"countermeasures": "simclr-3"},
    "moco": {"countermeasures": "moco-3"},
    "byol": {"countermeasures": "byol-3"},
    "simsiam": {"countermeasures": "simsiam-3"},
    "supcl": {"countermeasures": "supcl-3"},
}


COMMON = ("plain", "fixmatch", "refitted", "moco")
"""Kinds of the default run."""


class Looked(StopFlag):
    """Set from the look on that has this number, counted from 1."""

    def __init__(self, limit=10**9):
        super().__init__(signals=())
        self.looks, self.limit = 0, limit

    def __bool__(self):
        self.looks += 1
        return bool(self.looks >= self.limit)


def train(world, settings, keeper=None, seed=0):
    steps = Countermeasures.parse(settings.get("countermeasures", "plain"))
    config = VictimConfig(**{**SETTINGS, **settings, "countermeasures": steps})
    samples, test, owned = (Published(ToySource(n, seed=s), resident=RESIDENT) for n, s in ((50, 0), (40, 1), (30, 2)))
    keywords = {"owned": owned} if steps.refit else {}
    result = train_victim(config, samples, test, world, seed, keeper=keeper, **keywords).result
    return {**result.document(), "seconds": None}


def train_in_pieces(world, settings, path, stops):
    """A training that stops at these questions, counted from 1 over all its pieces."""
    for limit in np.diff([0, *stops]):
        with pytest.raises(StoppedError, match="saved: run the same command again to continue"):
            train(world, settings, Keeper(world, path, Looked(limit)))
    return train(world, settings, Keeper(world, path, Looked()))


def questions(world, settings, path):
    """An undisturbed training, and how often it asked."""
    flag = Looked()
    found = train(world, settings, Keeper(world, path, flag))
    assert not path.exists()
    return found, flag.looks


@pytest.mark.parametrize(
    "kind", [kind if kind in COMMON else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_training_that_is_stopped_ends_as_one_that_is_not(alone, tmp_path, kind):
    expected, asked = questions(alone, KINDS[kind], tmp_path / "state")
    # Within an epoch, and after the last test.
    assert train_in_pieces(alone, KINDS[kind], tmp_path / "state", [2, asked // 2 + 1, asked]) == expected


def test_it_may_be_stopped_after_any_step_and_any_test(alone, tmp_path):
    expected, asked = questions(alone, {}, tmp_path / "state")
    # After every step, every epoch, and the one batch of each test.
    assert asked == expected["steps"] + 3 + 3
    assert train_in_pieces(alone, {}, tmp_path / "state", range(1, asked + 1)) == expected


def pieces_on(world, settings, path, stops):
    """The same on a rank; only rank 0 is asked to stop. Ranks agree after every step here, however short it is."""
    seconds, keeper.AGREEMENT_SECONDS = keeper.AGREEMENT_SECONDS, 0.0
    try:
        if world.leads:
            return train_in_pieces(world, settings, path, stops)
        for _ in stops:
            with pytest.raises(StoppedError, match="stopped by a signal to another rank, saved"):
                train(world, settings, Keeper(world, path, Looked()))
        return train(world, settings, Keeper(world, path, Looked()))
    finally:
        keeper.AGREEMENT_SECONDS = seconds


@pytest.mark.parametrize("kind", ["adversarial", pytest.param("moco", marks=pytest.mark.slow)])
def test_ranks_stop_together_and_go_on(pool, tmp_path, kind):
    expected = pool.run(train, KINDS[kind])
    assert pool.run(pieces_on, KINDS[kind], tmp_path / "state", [2, 6]) == expected


def gone_on(world, path):
    return train(world, {}, Keeper(world, path, Looked()))


@pytest.mark.parametrize("kind", ["plain", "simclr"])
def test_it_may_be_stopped_within_a_test(alone, tmp_path, monkeypatch, kind):
    usual = questions(alone, KINDS[kind], tmp_path / "state")[1]
    for module in (linear_layer, supervised, testing):
        monkeypatch.setattr(module, "BATCH", 20)
    expected, asked = questions(alone, KINDS[kind], tmp_path / "state")
    # After each batch of 40 test samples, and for the layer on features of 50 samples.
    assert asked - usual == {"plain": 3 * (2 - 1), "simclr": 3 * (2 + 3) - 3 * (1 + 1)}[kind]
    per_epoch = expected["steps"] // 3
    assert train_in_pieces(alone, KINDS[kind], tmp_path / "state", [per_epoch + 1, per_epoch + 4, asked]) == expected


def test_a_linear_probe_keeps_the_features_that_it_has(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_layer, "BATCH", 7)
    monkeypatch.setattr(testing, "BATCH", 7)
    with seeded_weights(5):
        torch.save(ARCHITECTURES["resnet18"].build(224).state_dict(), tmp_path / "resnet18.pth")
    settings = {"network": "resnet18", "input_size": 32, "checkpoint": str(tmp_path / "resnet18.pth")}
    settings["countermeasures"] = "linear-probe"
    expected, asked = questions(alone, settings, tmp_path / "state")
    # 50 and 40 samples in batches of 7; the second stop is among the test samples.
    assert asked == 8 + 6
    assert train_in_pieces(alone, settings, tmp_path / "state", [3, 10]) == expected
    assert {name: len(rows) for name, rows in Keeper(alone, tmp_path / "state").saved().items()} == {
        "train": 50,
        "test": 14,
    }


def test_another_number_of_ranks_goes_on(pool, alone, tmp_path):
    with pytest.raises(StoppedError):
        train(alone, {}, Keeper(alone, tmp_path / "state", Looked(6)))
    undisturbed = train(alone, {})
    first, second = pool.run(gone_on, tmp_path / "state")
    assert first == second
    assert first["curve"][0] == undisturbed["curve"][0]
    assert first["steps"] == undisturbed["steps"]
    assert first["curve"][-1]["test"] == pytest.approx(undisturbed["curve"][-1]["test"], abs=0.2)


def test_it_saves_now_and_then(alone, tmp_path):
    path, eager = tmp_path / "folder" / "state", replace(alone, checkpoint_seconds=0.0)
    found = train(eager, {}, Keeper(eager, path, Looked()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kept = Keeper(alone, path, Looked())
    assert kept.saved()["result"]["steps"] == found["steps"]
    kept.discard()
    assert kept.saved() is None


def test_a_damaged_file_is_named(alone, tmp_path):
    path = tmp_path / "state"
    with pytest.raises(StoppedError):
        train(alone, {}, Keeper(alone, path, Looked(2)))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100] + b"x" + whole[101:], b"x"):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"state is damaged .*remove it, and this training begins again"):
            Keeper(alone, path).saved()


def test_signals_are_left_to_programs_that_are_not_ours(alone, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    with Keeper(alone, tmp_path / "state").listening():
        assert signal.getsignal(signal.SIGTERM) is handler
