"""A journal as crafting writes it, read back."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toys import alone

from hpcule.config.errors import StoreError
from hpcule.craft.journal import Clock, Journal, read_journal
from hpcule.craft.method import Step
from hpcule.study.crafting import PERIODS, LossCurve, crafting_facts, noise_scales, samples_in
from hpcule.world.gradient_norms import GradientNorms

NORMS = GradientNorms(8, 8, 20.0, 1.0)
"""tr(Sigma) = (20 - 8) / 7, |G|^2 = 1 - tr(Sigma) / 8."""


def write(store, steps, rank=0):
    (store / "run").mkdir(exist_ok=True)
    world = replace(alone(), rank=rank)
    journal = Journal(store, world, Clock(world).sections["craft"])
    for step in steps:
        journal.note(step)
    journal.close()


def steps_of(cluster, losses, first=0):
    """One step a loss."""
    return [
        Step(
            "generators",
            n,
            99,
            {"cluster": cluster, "step": first + n, "divergence": loss, "saturated": 0.5, "moved": n / 8},
            NORMS,
        )
        for n, loss in enumerate(losses)
    ]


def test_ranks_and_resumed_runs_note_a_step_more_than_once(tmp_path):
    write(tmp_path, [Step("features", 1, 1), *steps_of(0, [4.0, 3.0, 9.9])])
    write(tmp_path, steps_of(0, [2.0, 1.0], first=2))  # went on from a checkpoint after two steps
    write(tmp_path, steps_of(1, [8.0, 7.0, 6.0, 5.0]), rank=1)
    write(tmp_path, steps_of(1, [8.0, 7.0, 6.0, 5.0]), rank=2)
    with (tmp_path / "run" / "log-00001.jsonl").open("a") as log:
        log.write('{"stage": "generators", "step": 3, "clus')
    entries = read_journal(tmp_path)
    assert [(entry["cluster"], entry["step"], entry["divergence"]) for entry in entries] == [
        *((0, 0, 4.0), (0, 1, 3.0), (0, 2, 2.0), (0, 3, 1.0)),
        *((1, 0, 8.0), (1, 1, 7.0), (1, 2, 6.0), (1, 3, 5.0)),
    ]
    facts = crafting_facts(tmp_path, "divergence", None)
    assert (facts["loss_first"], facts["loss_last"], facts["loss_steps"]) == (6.0, 3.0, 4)
    assert facts["saturated"] == 0.5
    assert (facts["moved_first"], facts["moved_last"]) == (0.0, 0.25)
    assert facts["steps_to_target"] is None


def test_a_craft_without_training_has_no_loss(tmp_path):
    write(tmp_path, [Step("noise", 1, 1)])
    facts = crafting_facts(tmp_path, "divergence", 0.5)
    assert facts["loss_first"] is facts["loss_last"] is facts["steps_to_target"] is None
    assert facts["noise_scales"] == []


def test_samples_to_a_target_are_counted_as_the_steps_took_them():
    entries = [
        {"cluster": cluster, "step": step, "batches": 1, "samples": samples}
        for cluster, sizes in enumerate([[10, 10, 4, 10], [10, 10, 10, 2]])
        for step, samples in enumerate(sizes)
    ]
    assert [samples_in(entries, steps) for steps in (1, 3, 4)] == [10, 27, 33]
    assert samples_in([{"step": 0}], 1) is None


def test_the_target_is_met_by_a_running_mean_not_by_a_lucky_step():
    lucky = LossCurve([(n, 1.0) for n in range(10)] + [(10, 0.1)] + [(11, 1.0)])
    assert lucky.steps_to(0.8) is None
    falling = LossCurve([(n, 1 - 0.1 * n) for n in range(10)])
    slow = next(n + 1 for n in range(4, 10) if np.mean([1 - 0.1 * k for k in range(n - 4, n + 1)]) <= 0.5)
    assert falling.steps_to(0.5) == slow == 8
    assert LossCurve([(n, float(n < 90)) for n in range(100)]).last == pytest.approx(0.0)


def test_noise_scales_of_the_run_and_of_its_quarters():
    rising = [(n, GradientNorms(8, 8, (20.0 if n < 60 else 50.0) + 0.01 * (n % 7), 1.0)) for n in range(80)]
    whole, *quarters = noise_scales(rising)
    assert len(quarters) == PERIODS
    assert (whole["first_step"], whole["last_step"]) == (0, 79)
    assert [(q["first_step"], q["last_step"]) for q in quarters] == [(0, 19), (20, 39), (40, 59), (60, 79)]
    trace = (20.03 - 8) / 7
    assert quarters[0]["noise_scale"] == pytest.approx(trace / (1 - trace / 8), rel=0.01)
    assert quarters[3]["noise_scale"] > 2 * quarters[2]["noise_scale"]
    assert quarters[0]["low"] <= quarters[0]["noise_scale"] <= quarters[0]["high"]


def test_what_is_not_identifiable_says_why_and_holds_no_infinity():
    few, *_ = noise_scales([(n, NORMS) for n in range(5)])
    assert few["noise_scale"] is None
    assert "too few" in few["reason"]
    # |G|^2 = (8 |g|^2 - 2) / 7, here 0 on average.
    noise = [(n, GradientNorms(8, 8, 16.0, 0.25 + 0.1 * math.sin(9.0 * n))) for n in range(40)]
    lost, *_ = noise_scales(noise)
    assert lost["noise_scale"] is None
    assert lost["high"] is None
    assert "cannot be distinguished from zero" in lost["reason"]


@pytest.mark.parametrize("line", ["[1]", '"step"', '{"step": NaN}', '{"step": 1e999}', "\xff"])
def test_what_is_no_entry_is_passed_over(tmp_path, line):
    write(tmp_path, steps_of(0, [4.0, 3.0]))
    with (tmp_path / "run" / "log-00000.jsonl").open("ab") as log:
        log.write(f"{line}\n".encode("latin-1"))
    assert len(read_journal(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"step": "a"}, {"stage": []}, {"divergence": "low"}, {"squared_norm": 9.0}])
def test_an_entry_that_no_craft_has_noted_is_named(tmp_path, change):
    write(tmp_path, steps_of(0, [4.0, 3.0]))
    path = tmp_path / "run" / "log-00000.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), **change})}\n")
    with pytest.raises(StoreError, match=r"run is damaged .*; remove its log-\*\.jsonl"):
        crafting_facts(tmp_path, "divergence", None)
