"""DeepSpeed beside DDP on the same problem, in processes of their own: it leaves groups and settings behind."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from pool import Pool
from slowly import slow_but
from torch import nn
from torch.nn import functional

from hpcule.config.errors import DivergedError, UsageError
from hpcule.store.state import pack_state, unpack_state
from hpcule.world.deepspeed_engine import DeepSpeedConfig, DeepSpeedEngine
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


STAGES = {
    "0": {"zero": 0},
    "1": {"zero": 1},
    "2": {"zero": 2},
    "3": {"zero": 3},
    "1, optimizer offloaded": {"zero": 1, "offload": "optimizer"},
    "3, optimizer offloaded": {"zero": 3, "offload": "optimizer"},
    "3, parameters offloaded": {"zero": 3, "offload": "parameters"},
}
QUICK = [("0", False), ("1", True), ("2", False), ("3", True), ("3, parameters offloaded", False)]


def trained(world, stage=None, bf16=False, steps=4, clip_norm=None):
    """Loss and weights after steps on 8 and 7 samples a rank, in three parts of unequal size; DDP without a stage."""
    return train(world, range(steps), stage, bf16=bf16, clip_norm=clip_norm)[:2]


def build_engine(world, stage, network, optimizer, clip_norm=None, **config):
    if stage is None:
        return DdpEngine(network, optimizer, world, clip_norm=clip_norm)
    return DeepSpeedEngine(network, optimizer, world, DeepSpeedConfig(**STAGES[stage], clip_norm=clip_norm, **config))


def train(world, steps, stage=None, saved=None, bf16=False, bf16_weights=False, adam=False, clip_norm=None):
    """Losses and weights, and the engine's state in the end, of these steps from a state on."""
    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    if adam:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    settings = {"bf16": bf16, "bf16_weights": bf16_weights, "micro_batch": 3, "parts": 3}
    engine = build_engine(world, stage, network, optimizer, clip_norm, **settings)
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
    state = pack_state(engine.state())
    engine.release()
    return losses, flat(network), state


def flat(network):
    return torch.cat([values.detach().reshape(-1) for values in network.parameters()]).tolist()


@needs_deepspeed
@pytest.mark.parametrize(("stage", "bf16"), slow_but(QUICK, itertools.product(STAGES, [False, True])))
def test_every_stage_takes_the_steps_of_ddp(ranks, stage, bf16):
    expected = ranks.run(trained, None, bf16)
    found = ranks.run(trained, stage, bf16)
    assert expected[0][0][-1] < 0.7 * expected[0][0][0]
    for (losses, weights), (other_losses, other_weights) in zip(found, expected, strict=True):
        assert losses == pytest.approx(other_losses, rel=1e-4)
        # bf16 rounds what differs in its last bit to neighbours.
        assert weights == pytest.approx(other_weights, rel=1e-3, abs=1e-2 if bf16 else 1e-5)
    assert found[0] == found[1]


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize(
    ("stage", "adam"), [*((stage, False) for stage in STAGES), ("0", True), ("3, parameters offloaded", True)]
)
def test_every_stage_goes_on_from_what_it_saved(ranks, stage, adam):
    whole = ranks.run(train, range(4), stage, None, False, False, adam)
    half = ranks.run(train, range(2), stage, None, False, False, adam)
    rest = ranks.run(train, range(2, 4), stage, half[0][2], False, False, adam)
    for one, first, second in zip(whole, half, rest, strict=True):
        assert (first[0] + second[0], second[1]) == one[:2]
    # What is saved without a further step is the same again.
    again = ranks.run(train, range(0), stage, half[0][2], False, False, adam)
    assert again[0][1] == half[0][1]
    assert_same(again[0][2], half[0][2])


def assert_same(one, other):
    one, other = unpack_state(one), unpack_state(other)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize(("before", "after"), [(None, "3"), ("3", None), ("1", "3, parameters offloaded")])
def test_a_state_is_that_of_every_engine(ranks, before, after, adam):
    whole = ranks.run(train, range(4), None, None, False, False, adam)
    half = ranks.run(train, range(2), before, None, False, False, adam)
    rest = ranks.run(train, range(2, 4), after, half[0][2], False, False, adam)
    assert half[0][0] + rest[0][0] == pytest.approx(whole[0][0], rel=1e-3)
    if not adam:
        # BatchNorm takes the gradient of the biases before it away, and Adam makes steps of its rounding errors.
        assert rest[0][1] == pytest.approx(whole[0][1], rel=1e-3, abs=1e-5)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("stage", ["0", "1", "2", "3"])
def test_another_number_of_ranks_goes_on(ranks, stage):
    whole = ranks.run(train, range(4), stage)[0]
    with Pool(1) as single:
        half = single.run(train, range(2), stage)[0]
        rest = ranks.run(train, range(2, 4), stage, half[2])[0]
        back = single.run(train, range(2, 4), stage, ranks.run(train, range(2), stage)[0][2])[0]
    for losses in (half[0] + rest[0], whole[0][:2] + back[0]):
        # A rank has its own BatchNorm statistics within a step.
        assert losses == pytest.approx(whole[0], rel=0.2)


class Plane(nn.Module):
    """Two weights, each a parameter of its own, of value 1."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Linear(1, 1, bias=False) for _ in range(2))
        for weights in self.parameters():
            nn.init.ones_(weights)

    def forward(self, points):
        return self.first(points[:, :1]) + self.second(points[:, 1:])


def clipped_step(world, stage, clip_norm):
    """The negative step of rate 1 along the mean gradient (30, 40), of which each rank sees one direction."""
    network = Plane()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    engine = build_engine(world, stage, network, optimizer, clip_norm, micro_batch=1, parts=1)
    with engine.part(last=True):
        engine.backward(engine.network(torch.tensor([[[60.0, 0.0]], [[0.0, 80.0]]][world.rank])).sum())
    engine.step()
    engine.release()
    return [1 - value for value in flat(network)]


@needs_deepspeed
@pytest.mark.parametrize("stage", slow_but([None, "0", "2", "3"], [None, *STAGES]))
def test_the_norm_of_the_mean_gradient_over_all_parameters_is_limited(ranks, stage):
    for clip_norm, expected in [(5.0, [3.0, 4.0]), (60.0, [30.0, 40.0]), (None, [30.0, 40.0])]:
        for step in ranks.run(clipped_step, stage, clip_norm):
            assert step == pytest.approx(expected, rel=1e-5)


def small_steps(world, stage):
    """Answers of a weight that is 1 at first, and its float32 value after 12 steps of 2^-10, which bf16 rounds to 0."""
    network = Plane()
    optimizer = torch.optim.SGD(network.parameters(), lr=2.0**-10)
    engine = build_engine(world, stage, network, optimizer, bf16_weights=True, micro_batch=1, parts=1)
    answers = []
    for _ in range(12):
        with engine.part(last=True):
            answer = engine.network(torch.tensor([[1.0, 0.0]])).float().sum()
            engine.backward(answer)
        answers.append(answer.item())
        engine.step()
    engine.release()
    return answers, flat(network)


@needs_deepspeed
@pytest.mark.parametrize("stage", slow_but(["3"], ["2", "3", "3, parameters offloaded"]))
def test_steps_below_the_spacing_of_bf16_weights_add_up_in_float32(ranks, stage):
    exact = torch.tensor([1 - number * 2.0**-10 for number in range(12)])
    assert ranks.run(small_steps, stage) == [(exact.bfloat16().tolist(), [1 - 12 * 2.0**-10, 1.0])] * 2
    assert exact.bfloat16().unique().numel() == 4


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("stage", ["2", "3"])
def test_bf16_weights_follow_the_curve_and_go_on_from_what_was_saved(ranks, stage):
    expected = ranks.run(train, range(4))[0]
    whole = ranks.run(train, range(4), stage, None, False, True)
    half = ranks.run(train, range(2), stage, None, False, True)
    rest = ranks.run(train, range(2, 4), stage, half[0][2], False, True)
    assert (half[0][0] + rest[0][0], rest[0][1]) == whole[0][:2]
    assert whole[0][0] == pytest.approx(expected[0], rel=0.05)
    state = unpack_state(whole[0][2])
    assert {values.dtype for values in state["network"].values()} == {torch.float32, torch.int64}
    running = unpack_state(expected[2])["network"]["1.running_mean"]
    torch.testing.assert_close(state["network"]["1.running_mean"], running, rtol=0.02, atol=0.02)


def diverged(world, stage):
    network = Plane()
    engine = build_engine(world, stage, network, torch.optim.SGD(network.parameters(), lr=1.0), micro_batch=1, parts=1)
    with engine.part(last=True):
        engine.backward(engine.network(torch.tensor([[float("inf"), 1.0]])).sum())
    try:
        engine.step()
    except DivergedError as error:
        return str(error)
    return "stepped"


@needs_deepspeed
def test_a_gradient_that_is_not_finite_ends_the_training(ranks):
    assert ranks.run(diverged, "3") == ["the victim diverged: lower victim.learning_rate"] * 2


def environment_around(world):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR")
    os.environ["MASTER_PORT"] = "1"
    for stage in ("1", "3"):
        trained(world, stage, steps=1)
    try:
        return [os.environ.get(name) for name in names]
    finally:
        del os.environ["MASTER_PORT"]


@needs_deepspeed
def test_the_environment_stays_as_it_was(ranks):
    assert ranks.run(environment_around) == [[None, None, None, None, "1", None]] * 2


def refused(world):
    try:
        trained(replace(world, rank=0, size=1, group=None, memory=None), "1")
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
        trained(alone, "1")


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize(
    ("workers", "stage"),
    [(1, {}), (2, {"zero": 3, "offload": "parameters", "precision": "bf16-weights", "clip_norm": 1.0})],
)
def test_the_command_trains_with_it_and_prints_its_result_alone(tmp_path, workers, stage):
    arguments = ["train", "--data=digits", f"--workers={workers}", f"--out={tmp_path}", "--json"]
    victim = {"network": "convnet", "engine": "deepspeed", "steps": 2, "batch": 64, "micro_batch": 16, **stage}
    settings = ["world.device=cpu", "world.threads=1", *(f"victim.{name}={value}" for name, value in victim.items())]
    command = [sys.executable, "-m", "hpcule", *arguments, *(f"--set={setting}" for setting in settings)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["steps"], printed["workers"], printed["steps_to_target"]) == (2, workers, None)
    assert printed == json.loads((tmp_path / "results.json").read_text())
