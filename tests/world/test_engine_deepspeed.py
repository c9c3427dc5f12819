"""DeepSpeed beside DDP on the same problem, in processes of their own: it leaves groups and settings behind."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from pool import Pool
from torch import nn
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.store.state import pack_state, unpack_state
from hpcule.world.deepspeed_engine import DeepSpeedEngine
from hpcule.world.engine import DdpEngine

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason='DeepSpeed is missing: pip install "hpcule[deepspeed]"'
)


@pytest.fixture(scope="module")
def ranks():
    with Pool() as pool:
        yield pool


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    ).to(memory_format=torch.channels_last)


def make_batch():
    generator = torch.Generator().manual_seed(1)
    return 20 * torch.randn(15, 3, 6, 6, generator=generator), torch.arange(15) % 3


def trained(world, zero=None, bf16=False, steps=4):
    """Loss and weights after steps on 8 and 7 samples a rank, in three parts of unequal size; DDP without a stage."""
    return train(world, range(steps), zero, bf16)[:2]


def train(world, steps, zero=None, bf16=False, adam=False, saved=None):
    """Losses and weights, and the engine's state in the end, of these steps from a state on."""
    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    if adam:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    settings = {"bf16": bf16, "micro_batch": 3, "parts": 3}
    engine = (
        DdpEngine(network, optimizer, world)
        if zero is None
        else DeepSpeedEngine(network, optimizer, world, zero=zero, **settings)
    )
    if saved is not None:
        engine.load(unpack_state(saved))
    images, labels = make_batch()
    mine = torch.arange(15).tensor_split(world.size)[world.rank].tensor_split(3)
    losses = []
    for step in steps:
        optimizer.param_groups[0]["lr"] = 0.5 / (step + 1)
        total = torch.zeros(())
        for number, part in enumerate(mine):
            with engine.part(last=number == 2):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits = engine.network(images[part])
                loss = functional.cross_entropy(logits.float(), labels[part], reduction="sum")
                engine.backward(loss * world.size / 15)
            total += loss.detach()
        engine.step()
        losses.append(world.add(total).item() / 15)
    weights = torch.cat([values.detach().reshape(-1) for values in network.parameters()]).tolist()
    return losses, weights, pack_state(engine.state())


@needs_deepspeed
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_every_stage_takes_the_steps_of_ddp(ranks, zero, bf16):
    expected = ranks.run(trained, None, bf16)
    found = ranks.run(trained, zero, bf16)
    assert expected[0][0][-1] < 0.7 * expected[0][0][0]
    for (losses, weights), (other_losses, other_weights) in zip(found, expected, strict=True):
        assert losses == pytest.approx(other_losses, rel=1e-4)
        # bf16 rounds what differs in its last bit to neighbours.
        assert weights == pytest.approx(other_weights, rel=1e-3, abs=1e-2 if bf16 else 1e-5)
    assert found[0] == found[1]


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_every_stage_goes_on_from_what_it_saved(ranks, zero, adam):
    whole = ranks.run(train, range(4), zero, False, adam)
    half = ranks.run(train, range(2), zero, False, adam)
    rest = ranks.run(train, range(2, 4), zero, False, adam, half[0][2])
    for one, first, second in zip(whole, half, rest, strict=True):
        assert (first[0] + second[0], second[1]) == one[:2]
    # What is saved without a further step is the same again.
    again = ranks.run(train, range(0), zero, False, adam, half[0][2])
    assert again[0][1:] == (half[0][1], half[0][2])


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_another_number_of_ranks_goes_on(ranks, zero):
    whole = ranks.run(train, range(4), zero)[0]
    with Pool(1) as single:
        half = single.run(train, range(2), zero)[0]
        rest = ranks.run(train, range(2, 4), zero, False, False, half[2])[0]
        back = single.run(train, range(2, 4), zero, False, False, ranks.run(train, range(2), zero)[0][2])[0]
    for losses in (half[0] + rest[0], whole[0][:2] + back[0]):
        # A rank has its own BatchNorm statistics within a step.
        assert losses == pytest.approx(whole[0], rel=0.2)


def large_gradient(world, zero):
    """How far one step of rate 1 goes along a gradient of norm 100."""
    network = nn.Linear(4, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    engine = DeepSpeedEngine(network, optimizer, world, zero=zero, bf16=False, micro_batch=1, parts=1)
    with engine.part(last=True):
        engine.backward(engine.network(torch.full((1, 4), 50.0)).sum())
    engine.step()
    return (before - network.weight.detach()).norm().item()


@needs_deepspeed
@pytest.mark.parametrize("zero", [0, 1])
def test_gradients_are_not_clipped(ranks, zero):
    assert ranks.run(large_gradient, zero) == pytest.approx([100.0, 100.0])


def environment_around(world):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR")
    os.environ["MASTER_PORT"] = "1"
    trained(world, 1, steps=1)
    try:
        return [os.environ.get(name) for name in names]
    finally:
        del os.environ["MASTER_PORT"]


@needs_deepspeed
def test_the_environment_stays_as_it_was(ranks):
    assert ranks.run(environment_around) == [[None, None, None, None, "1", None]] * 2


def refused(world):
    try:
        trained(replace(world, rank=0, size=1, group=None, memory=None), 1)
    except UsageError as error:
        return str(error)
    return "taken"


def test_a_part_of_the_run_is_refused(ranks):
    assert (
        ranks.run(refused)
        == [
            "victim.engine=deepspeed trains one network on all 2 workers, here one has 1: use `hpcule train`, or "
            "victim.engine=ddp"
        ]
        * 2
    )


def test_a_missing_deepspeed_is_named_with_its_remedy(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UsageError, match=r'DeepSpeed is missing: pip install "hpcule\[deepspeed\]"'):
        trained(alone, 1)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_trains_with_it_and_prints_its_result_alone(tmp_path, workers):
    arguments = ["train", "--data=digits", f"--workers={workers}", f"--out={tmp_path}", "--json"]
    victim = {"network": "convnet", "engine": "deepspeed", "steps": 2, "batch": 64, "micro_batch": 16}
    settings = ["world.device=cpu", "world.threads=1", *(f"victim.{name}={value}" for name, value in victim.items())]
    command = [sys.executable, "-m", "hpcule", *arguments, *(f"--set={setting}" for setting in settings)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["steps"], printed["workers"], printed["steps_to_target"]) == (2, workers, None)
    assert printed == json.loads((tmp_path / "results.json").read_text())
