"""The noise phase of the two-phase template: for any delta, for one delta a sample, and for one delta a class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.craft.method import Event, Problem, Saved, ShardResult, SharedResult, Step, finite
from hpcule.craft.parts.levels import local_budget, to_levels
from hpcule.craft.parts.settings import ClassNoiseConfig, TwoPhaseConfig
from hpcule.craft.parts.surrogate import input_gradient, logits_of
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.data.source import Ids
from hpcule.data.view import View
from hpcule.store.checkpoint import PartState
from hpcule.world.exact import Sum
from hpcule.world.keyed import key, order


class Noise(ABC):
    """The deltas of a run and how they move; delta is in units of [0, 1]."""

    def __init__(
        self, config: TwoPhaseConfig, problem: Problem, targets: Callable[[Tensor], Tensor], direction: float
    ) -> None:
        assert config.noise_steps is not None
        assert config.step_size is not None
        self.config = config
        self.problem = problem
        self.targets = targets
        self.steps = config.noise_steps
        self.epsilon = config.epsilon / problem.source.levels
        self.direction = direction
        self.step = direction * config.step_size / problem.source.levels

    @abstractmethod
    def delta(self, ghost: Ghost) -> Tensor:
        """The deltas of a ghost [n, C, H, W]."""

    @abstractmethod
    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """Noise phase of round `number`; goes on where an interrupted one was."""

    @abstractmethod
    def error(self) -> float:
        """The surrogate's error over the perturbed samples of the last sweep, over all ranks."""

    @abstractmethod
    def results(self) -> Iterator[Event]:
        """The finished deltas."""

    @abstractmethod
    def shared_state(self) -> PartState:
        """State that is the same on all ranks."""

    @abstractmethod
    def parts(self) -> dict[str, Mapping[str, object]]:
        """State of this rank's own shards, by part."""

    @abstractmethod
    def restore(self, shared: PartState, saved: Saved) -> None:
        """Restore the deltas from the shared state and from the parts."""

    def descend(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """Signed steps within the budget; the sample stays in [0, 1] as the network sees it.

        Args:
            frozen: the surrogate in evaluation mode.
            clean: [n, C, H, W] in [0, 1].
            delta: [n, C, H, W].
            labels: the samples' own [n].
            ids: [n].
            number: of the round; each step of each round looks through an augmentation of its own.

        Returns:
            The new deltas, within the budget but not clipped to the box.
        """
        budget = self.budget(clean)
        for step in range(self.steps):
            seen = (clean + delta).clamp_(0, 1)
            gradient = self.gradient(frozen, clean, seen, labels, ids, (number, step))
            delta = seen.add_(gradient.sign_(), alpha=self.step).sub_(clean).clamp_(-budget, budget)
        return delta

    def budget(self, clean: Tensor) -> Tensor:
        """Largest change of each value of samples [n, C, H, W] in [0, 1]; see `local_budget`."""
        levels = self.problem.source.levels
        return local_budget(clean * levels, levels, self.config.epsilon, self.config.flat)

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Gradient of the loss that the steps lower or raise, summed, for perturbed samples [n, C, H, W].

        Args:
            frozen: the surrogate in evaluation mode.
            clean: the samples without their deltas.
            seen: with them, in [0, 1].
            labels: the samples' own [n].
            ids: [n].
            place: of this gradient in the run (round, step): each looks through an augmentation of its own.
        """
        losses = self.problem.task.losses
        return input_gradient(frozen, seen, self.targets(labels), self.view(ids, *place), losses)[0]

    def view(self, ids: Ids, *place: int) -> View | None:
        """The augmentation at that place of the run."""
        purpose = key(self.problem.seed, self.config.name, "noise view", *place)
        return self.config.view(purpose, ids, self.problem.source.shape[1:])

    def count_errors(
        self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int
    ) -> float:
        """How many perturbed samples the surrogate gets wrong after round `number`, parts of an answer as such."""
        with torch.no_grad():
            answers = finite(logits_of(frozen, (clean + delta).clamp_(0, 1)))
            return len(ids) - float(self.problem.task.right(answers, labels).double().sum())

    def load(self, shard: int, ids: Ids) -> tuple[Tensor, Tensor]:
        """Samples in [0, 1] and what the task knows of them."""
        clean = self.problem.unit_interval(self.problem.reader.take(shard, ids))
        return clean, self.problem.targets(ids)


class SampleNoise(Noise):
    """One delta a sample, kept by the rank that owns its shard and never sent.

    Between visits a delta rests as float16 in levels: 2^-9 of a level at the budget of 8, at half of float32's memory.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        shape = self.problem.source.shape
        self._deltas = {
            shard: torch.zeros(self.problem.partition.range(shard)[1], *shape, dtype=torch.float16)
            for shard in self.problem.owned
        }
        self._swept = dict.fromkeys(self._deltas, 0)
        self._errors = dict.fromkeys(self._deltas, 0.0)

    def delta(self, ghost: Ghost) -> Tensor:
        """The ghost's own deltas."""
        first, _ = self.problem.partition.range(ghost.shard)
        return self._wake(self._deltas[ghost.shard][torch.from_numpy(ghost.ids - first)])

    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """Each rank walks through its own shards."""
        owned = list(self._deltas)
        for turn in range(self.problem.rounds):
            if turn < len(owned) and self._swept[owned[turn]] == number:
                self._visit(frozen, owned[turn], number)
                self._swept[owned[turn]] = number + 1
            yield Step("noise", turn + 1, self.problem.rounds)

    def move(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """A visit's new deltas, within the budget; see `descend`."""
        return self.descend(frozen, clean, delta, labels, ids, number)

    def groups(self, ids: Ids, number: int) -> list[Ids]:
        """The samples of a shard by what the network processes together in round `number`."""
        return [ids[tile] for tile in self.problem.tiles(ids)]

    def error(self) -> float:
        """The surrogate's error over the whole training set."""
        wrong = torch.tensor(sum(self._errors.values()), dtype=torch.float64, device=self.problem.world.device)
        return float(self.problem.world.add(wrong)) / len(self.problem.source)

    def results(self) -> Iterator[Event]:
        """Deltas of own shards, on the grid."""
        source = self.problem.source
        for shard, deltas in self._deltas.items():
            if shard not in self.problem.done:
                clean = self.problem.reader.take(shard, self.problem.partition.ids(shard))
                epsilon = round(self.epsilon * source.levels, 6)
                found = to_levels(self._wake(deltas), clean, source.levels, epsilon, self.config.flat)
                yield ShardResult(shard, delta=found)

    def shared_state(self) -> PartState:
        """An empty state: deltas are in the parts."""
        return {}

    def parts(self) -> dict[str, Mapping[str, object]]:
        """The shards' deltas and how far the sweep is."""
        return {
            f"shard-{shard:05d}": {"delta": delta, "swept": self._swept[shard], "errors": self._errors[shard]}
            for shard, delta in self._deltas.items()
        }

    def restore(self, shared: PartState, saved: Saved) -> None:
        """Load own shards, whoever wrote them."""
        for shard in self._deltas:
            part = saved.load(f"shard-{shard:05d}")
            self._deltas[shard] = part["delta"]
            self._swept[shard], self._errors[shard] = part["swept"], part["errors"]

    def _visit(self, frozen: nn.Module, shard: int, number: int) -> None:
        ids = self.problem.partition.ids(shard)
        deltas, errors = self._deltas[shard], 0.0
        for group in self.groups(ids, number):
            rows = torch.from_numpy(group - ids[0])
            clean, labels = self.load(shard, group)
            delta = self.move(frozen, clean, self._wake(deltas[rows]), labels, group, number)
            errors += self.count_errors(frozen, clean, delta, labels, group, number)
            deltas[rows] = delta.mul_(self.problem.source.levels).half().cpu()
        self._errors[shard] = errors

    def _wake(self, delta: Tensor) -> Tensor:
        return delta.to(self.problem.world.device).float().div_(self.problem.source.levels)


class ClassNoise(Noise):
    """One delta a class, the same on all ranks.

    A batch makes it the mean of its samples' stepped deltas, as the code of EM's authors does it, or moves it by the
    sign of their summed gradients, as that of AUE's authors does.
    """

    def __init__(self, config: ClassNoiseConfig, problem: Problem, *arguments: Any, sign_of_sum: bool = False) -> None:
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
        self._wrong = 0.0

    def delta(self, ghost: Ghost) -> Tensor:
        """The deltas of the ghost's classes."""
        return self._deltas[torch.from_numpy(self.problem.classes(ghost.ids)).to(self._deltas.device)]

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
        self._wrong, self._size = 0.0, sum(map(samples_of, batches))
        for ghost in self.problem.mine([ghost for batch in batches for ghost in batch]):
            clean, labels = self.load(ghost.shard, ghost.ids)
            self._wrong += self.count_errors(frozen, clean, self.delta(ghost), labels, ghost.ids, number)

    def batches(self, number: int) -> list[list[Ghost]]:
        """Batches of the sweep of round `number`: the whole subset."""
        return self._schedule.epoch(number)

    def error(self) -> float:
        """The surrogate's error over the samples of the last sweep."""
        wrong = torch.tensor(self._wrong, dtype=torch.float64, device=self.problem.world.device)
        return float(self.problem.world.add(wrong)) / self._size

    def results(self) -> Iterator[Event]:
        """The shared deltas, unclipped: no single sample's box binds them; and each sample's class."""
        levels = self.problem.source.levels
        bound = int(round(self.epsilon * levels, 6))
        rounded = (self._deltas * levels).round().to(torch.int32).clamp_(-bound, bound)
        yield SharedResult(rounded.cpu().numpy())
        for shard in self.problem.owned:
            if shard not in self.problem.done:
                yield ShardResult(shard, group=self.problem.classes(self.problem.partition.ids(shard)))

    def shared_state(self) -> PartState:
        """The deltas and how far the sweep is."""
        return {"deltas": self._deltas, "batch": self._batch}

    def parts(self) -> dict[str, Mapping[str, object]]:
        """No parts: deltas are in the shared state."""
        return {}

    def restore(self, shared: PartState, saved: Saved) -> None:
        """Restore the deltas."""
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
    labels, purpose = problem.source.labels, key(problem.seed, "subset")
    parts = []
    for label in range(problem.source.class_count):
        ids = order(purpose, np.flatnonzero(labels == label))
        parts.append(ids[: max(1, round(share * len(ids)))])
    return np.sort(np.concatenate(parts))
