"""Batches that there are no samples for, and what a run says of its batches before and after."""

import dataclasses
import hashlib

import numpy as np
import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.craft import run
from hpcule.craft.preparation import batch_notice, check_craft_batch, cut_into_shards, plan
from hpcule.craft.table import METHODS, configure
from hpcule.store.vault import Vault
from hpcule.world.signals import StopFlag


def settings(method, *overrides, preset="smoke"):
    return configure(method, "toys", preset=preset, file={}, overrides=[f"method.{one}" for one in overrides])


@pytest.mark.parametrize(("method", "batch"), [("em", 61), ("pil", 100), ("uc", 61), ("cp", 513)])
def test_a_batch_that_was_asked_for_and_cannot_be_is_refused(method, batch):
    config = settings(method, f"batch={batch}")
    with pytest.raises(UsageError, match=rf"method.batch={batch} is more than the 60 samples: .* method.batch=60"):
        check_craft_batch(config, 60)
    check_craft_batch(config, batch)


@pytest.mark.parametrize("preset", ["paper", "small", "smoke"])
@pytest.mark.parametrize("method", ["em", "pil", "uc", "gue", "lsp"])
def test_a_presets_own_batch_is_not_refused_but_told(method, preset):
    config = settings(method, preset=preset)
    check_craft_batch(config, 20)
    batch = getattr(config.method, "batch", None)
    expected = f"method.batch={batch} is more than the 20 samples: a step takes all of them" if batch else None
    assert batch_notice(config, ToySource(20), 1) == expected
    assert batch_notice(config, ToySource(1024), 1) is None


def plan_of(config, source):
    cut = cut_into_shards(config, source, 1)
    return plan(dataclasses.replace(config, seed=0), source, cut, "fingerprint", bf16=False)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_plan_of_its_run(method):
    images = METHODS[method].facts.data == "images"
    source = ToySource(60, (3, 32, 32)) if images else ToySource(60, (1, 1, 256), dtype=np.uint16)
    manifest = plan_of(settings(method), source)
    assert manifest.method == method
    assert manifest.run_key == plan_of(settings(method), source).run_key


@pytest.mark.parametrize(
    ("method", "setting"), [("uc", "checkpoint={}"), ("texture-learned", "encoder_weights=[null, {}]")]
)
def test_a_run_is_bound_to_what_is_in_a_checkpoint_and_not_to_its_name(tmp_path, method, setting):
    files = [tmp_path / name for name in ("first.pt", "again.pt", "other.pt")]
    for file, content in zip(files, (b"weights", b"weights", b"others"), strict=True):
        file.write_bytes(content)
    overrides = ["encoders=[resnet18, resnet50]"] if method == "texture-learned" else []
    found = [plan_of(settings(method, *overrides, setting.format(file)), ToySource(60)) for file in files]
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    written = digest if method == "uc" else [None, digest]
    assert found[0].config["method"][setting.partition("=")[0]] == written
    assert found[0].run_key == found[1].run_key != found[2].run_key


def test_workers_without_work_are_told_of():
    config = settings("em", "batch=32", "ghost=8", "unit=class")
    assert batch_notice(config, ToySource(320), 4) is None
    assert batch_notice(config, ToySource(320), 6) == (
        "at most 4 of 6 workers have work in a training step: a batch of 32 has that many ghosts"
    )


EM = ["surrogate=convnet", "batch=23", "ghost=6", "model_steps=4", "max_rounds=2", "stop_error=-1", "noise_steps=1"]
PIL = ["batch=23", "ghost=6", "epochs=3", "steps=1"]


@pytest.mark.parametrize(
    ("method", "overrides", "steps", "seen"), [("em", EM, 8, 23 * 6 + 14 * 2), ("pil", PIL, 9, 180)]
)
def test_a_summary_counts_what_was_taken(alone, tmp_path, method, overrides, steps, seen):
    config, source = settings(method, *overrides), ToySource(60)
    for complete in (False, True):
        summary = run.craft(
            config, source, Vault(tmp_path / "store"), alone, StopFlag(), resume=True, report=lambda step: None
        )
        assert summary["already_complete"] is complete
        found = [summary[name] for name in ("batch_asked", "batch_taken", "steps", "samples_seen")]
        assert found == [23, 23, steps, seen]


def test_of_fewer_samples_than_a_presets_batch_all_are_taken(alone, tmp_path):
    config = settings("pil", "epochs=2", "steps=1")
    vault = Vault(tmp_path / "store")
    summary = run.craft(config, ToySource(60), vault, alone, StopFlag(), resume=True, report=lambda step: None)
    assert [summary[name] for name in ("batch_asked", "batch_taken", "steps", "samples_seen")] == [512, 60, 2, 120]
