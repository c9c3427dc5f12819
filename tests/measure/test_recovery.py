from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpcule.measure.recovery import project_weights, recover
from hpcule.store.state import pack_state, unpack_state


def test_weights_outside_come_back_to_the_ball_and_those_inside_stay():
    centre = [torch.zeros(2), torch.ones(1, 2)]
    weights = [torch.tensor([3.0, 0.0]), torch.tensor([[1.0, 5.0]])]
    assert project_weights(weights, centre, 10.0) == pytest.approx(5.0)
    assert weights[0].tolist() == [3.0, 0.0]
    assert project_weights(weights, centre, 1.0) == 1.0
    assert weights[0].tolist() == pytest.approx([0.6, 0.0])
    assert weights[1].tolist() == [pytest.approx([1.0, 1.8])]
    # The published program would push these out to the sphere.
    inside = [torch.tensor([0.1, 0.0]), torch.ones(1, 2)]
    assert project_weights(inside, centre, 1.0) == pytest.approx(0.1)
    assert inside[0][0] == pytest.approx(0.1)


def linear(radius, learning_rate=0.5, **more):
    """A linear classifier that would have to turn round, within a radius."""
    network = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    images, labels = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
    moved = recover(
        network,
        lambda epoch: [(images, labels)],
        radius=radius,
        epochs=200,
        steps_an_epoch=1,
        learning_rate=learning_rate,
        clip_norm=5.0,
        weight_decay=0.0,
        **more,
    )
    return moved, float((network(images).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("radius", "recovered"), [(1.0, 0.0), (1.4, 0.0), (1.43, 1.0), (3.0, 1.0)])
def test_no_further_than_allowed_and_as_far_as_needed(radius, recovered):
    """Both weights must pass 0: a way of the square root of 2."""
    moved, accuracy = linear(radius)
    assert accuracy == recovered == float(radius > math.sqrt(2))
    assert moved == pytest.approx(min(radius, moved))
    assert moved <= radius + 1e-6


def test_an_attack_goes_on_from_its_state():
    states = {}

    def note(state):
        if state()["steps"] in (1, 2, 150):
            states[state()["steps"]] = unpack_state(pack_state(state()))

    whole = linear(1.43, after_step=note)
    seen = []
    assert [linear(1.43, saved=state, after_step=lambda state: seen.append(1)) for state in states.values()] == [
        whole
    ] * 3
    assert len(seen) == 199 + 198 + 50
