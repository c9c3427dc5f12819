"""The noise phase of the two-phase template for one delta a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.craft.method import Event, Problem, Saved, ShardResult, SharedResult, Step, finite
from hpcule.craft.parts.noise import Noise
from hpcule.data.schedule import Ghost, Schedule
from hpcule.world.exact import Sum
from hpcule.world.keyed import key, order

if TYPE_CHECKING:
    from hpcule.craft.parts.two_phase import TwoPhaseConfig


class ClassNoise(Noise):
    """One delta a class, the same on all ranks.

    A batch makes it the mean of its samples' stepped deltas, as the code of EM's authors does it, or moves it by the
    sign of their summed gradients, as that of AUE's authors does.
    """

    def __init__(self, config: TwoPhaseConfig, problem: Problem, *arguments: Any, sign_of_sum: bool = False) -> None:
        super().__init__(config, problem, *arguments)
        self._sign_of_sum = sign_of_sum
        classes, device = problem.source.class_count, problem.world.device
        self._deltas = torch.zeros(classes, *problem.source.shape, device=device)
        chosen = _stratified(problem, config.subset)
        members = [ids[np.isin(ids, chosen)] for ids in map(problem.partition.ids, range(problem.partition.count))]
        self._size = len(chosen)
        """Samples of a sweep."""
        self._schedule = Schedule(members, config.ghost, config.batch, problem.seed, f"{config.name} noise")
        self._sums = Sum([self._deltas.shape, torch.Size([classes])], device, exact=problem.exact)
        self._batch = 0
        self._wrong = 0

    def delta(self, ghost: Ghost) -> Tensor:
        """The deltas of the ghost's classes."""
        return self._deltas[torch.from_numpy(self.problem.labels[ghost.ids]).to(self._deltas.device)]

    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """All ranks walk through the subset batch by batch, then count errors on it."""
        batches = self.batches(number)
        while self._batch < len(batches):
            self.problem.expect(batches[(self._batch + 1) % len(batches)])
            for ghost in self.problem.mine(batches[self._batch]):
                clean, labels = self.load(ghost.shard, ghost.ids)
                if self._sign_of_sum:
                    seen = (clean + self.delta(ghost)).clamp_(0, 1)
                    moves = self.gradient(frozen, clean, seen, labels, ghost.ids, (number, 0))
                else:
                    moves = self.descend(frozen, clean, self.delta(ghost), labels, ghost.ids, number)
                sums = torch.zeros_like(self._deltas).index_add_(0, labels, moves)
                counts = torch.bincount(labels, minlength=len(self._deltas)).float()
                self._sums.add([sums, counts])
            self._update(*self._sums.total(self.problem.world))
            self._batch += 1
            yield Step("noise", self._batch, len(batches))
        self._batch = 0
        self._wrong, self._size = 0, sum(len(ghost.ids) for batch in batches for ghost in batch)
        for ghost in self.problem.mine([ghost for batch in batches for ghost in batch]):
            clean, labels = self.load(ghost.shard, ghost.ids)
            self._wrong += self.count_errors(frozen, clean, self.delta(ghost), labels, ghost.ids, number)

    def batches(self, number: int) -> list[list[Ghost]]:
        """Of the sweep of round `number`: the whole subset."""
        return self._schedule.epoch(number)

    def error(self) -> float:
        """Over the samples of the last sweep."""
        wrong = torch.tensor(self._wrong, device=self.problem.world.device)
        return int(self.problem.world.add(wrong)) / self._size

    def results(self) -> Iterator[Event]:
        """The shared deltas, unclipped: no single sample's box binds them; and each sample's class."""
        levels = self.problem.source.levels
        bound = int(round(self.epsilon * levels, 6))
        rounded = (self._deltas * levels).round().to(torch.int32).clamp_(-bound, bound)
        yield SharedResult(rounded.cpu().numpy())
        for shard in self.problem.owned:
            if shard not in self.problem.done:
                yield ShardResult(shard, group=self.problem.labels[self.problem.partition.ids(shard)])

    def shared_state(self) -> dict[str, Any]:
        """The deltas and how far the sweep is."""
        return {"deltas": self._deltas, "batch": self._batch}

    def parts(self) -> dict[str, Mapping[str, Any]]:
        """Nothing."""
        return {}

    def restore(self, shared: Mapping[str, Any], saved: Saved) -> None:
        """Take the deltas back."""
        self._deltas = shared["deltas"].to(self.problem.world.device)
        self._batch = shared["batch"]

    def _update(self, sums: Tensor, counts: Tensor) -> None:
        """A class without a sample in the batch keeps its delta."""
        seen = counts > 0
        if self._sign_of_sum:
            moved = self._deltas[seen] + self.step * finite(sums[seen]).sign()
        else:
            moved = sums[seen] / counts[seen, None, None, None]
        self._deltas[seen] = moved.clamp_(-self.epsilon, self.epsilon)


def _stratified(problem: Problem, share: float) -> Any:
    """The same share of every class, at least one sample each, ascending ids."""
    labels, purpose = problem.labels, key(problem.seed, "subset")
    parts = []
    for label in range(problem.source.class_count):
        ids = order(purpose, np.flatnonzero(labels == label))
        parts.append(ids[: max(1, round(share * len(ids)))])
    return np.sort(np.concatenate(parts))
