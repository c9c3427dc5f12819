"""Recovery: how much a network trained on protected samples learns from a few clean ones without moving far.

Wang, Xue, Li, Camtepe, Zhu: "Provably Unlearnable Data Examples", NDSS 2025, arXiv 2405.03316. Their program puts the
weights onto the sphere around the start after every step, also from inside, and learns from the test set; here the ball
is a ball, and the samples are others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import StateDict

from hpcule.nets.running_statistics import normalising

Batch = tuple[Tensor, Tensor]
"""Images [b, C, H, W] in [0, 1] and labels [b]."""


class RecoveryState(TypedDict):
    """An attack between two steps, with which `recover` goes on."""

    network: Mapping[str, Tensor]
    optimizer: StateDict
    schedule: StateDict
    steps: int
    moved: float


@torch.no_grad()
def project_weights(parameters: Iterable[Tensor], centre: Sequence[Tensor], radius: float) -> float:
    """Bring weights back into the ball around a centre, in place; how far away they are then, in L2 of all together."""
    moves = [(parameter, start, parameter - start) for parameter, start in zip(parameters, centre, strict=True)]
    length = math.sqrt(sum(float(move.double().square().sum()) for *_, move in moves))
    if length <= radius:
        return length
    for parameter, start, move in moves:
        parameter.copy_(start + move * (radius / length))
    return radius


def recover(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    *,
    radius: float,
    epochs: int,
    steps_an_epoch: int,
    learning_rate: float,
    clip_norm: float,
    weight_decay: float,
    saved: RecoveryState | None = None,
    after_step: Callable[[Callable[[], RecoveryState]], None] = lambda state: None,
) -> float:
    """Train a network, in place, on clean samples within a radius of where it is; how far it has moved.

    BatchNorm's running statistics are no weights, and follow the samples freely.

    Args:
        network: to start from.
        batches: those of an epoch, counted from 0.
        radius: the longest move of all weights together, in L2.
        epochs: how many; the rate falls on a cosine over all of them.
        steps_an_epoch: batches of one.
        learning_rate: of SGD with a momentum of 0.9.
        clip_norm: largest norm of a gradient.
        weight_decay: of all weights.
        saved: where an earlier call from the same network was; None: at its beginning.
        after_step: called with what returns the attack's state.
    """
    parameters = list(network.parameters())
    centre = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps_an_epoch)
    done, length = 0, 0.0
    if saved is not None:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        done, length = saved["steps"], saved["moved"]

    def state() -> RecoveryState:
        return {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "steps": done,
            "moved": length,
        }

    network.train()
    for epoch in range(done // steps_an_epoch, epochs):
        for images, labels in itertools.islice(batches(epoch), done - epoch * steps_an_epoch, None):
            optimizer.zero_grad()
            with normalising(network, len(images)):
                loss = functional.cross_entropy(network(images), labels)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, clip_norm)
            optimizer.step()
            schedule.step()
            length = project_weights(parameters, centre, radius)
            done += 1
            after_step(state)
    network.eval()
    return length
