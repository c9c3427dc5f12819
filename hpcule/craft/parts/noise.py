"""The noise phase of the two-phase template: what it is for any delta, and for one delta a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hpcule.craft.method import Event, Problem, Saved, ShardResult, Step, finite
from hpcule.craft.parts.levels import to_levels
from hpcule.craft.parts.surrogate import evaluate, input_gradient
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids
from hpcule.data.view import View, draw_view
from hpcule.world.keyed import key

if TYPE_CHECKING:
    from hpcule.craft.parts.two_phase import TwoPhaseConfig


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
    def shared_state(self) -> dict[str, Any]:
        """What all ranks have alike."""

    @abstractmethod
    def parts(self) -> dict[str, Mapping[str, Any]]:
        """What each rank has of its own."""

    @abstractmethod
    def restore(self, shared: Mapping[str, Any], saved: Saved) -> None:
        """Take both back."""

    def descend(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """Signed steps within the budget; the sample stays in [0, 1] while the network looks at it.

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
        for step in range(self.steps):
            seen = (clean + delta).clamp_(0, 1)
            gradient = self.gradient(frozen, clean, seen, labels, ids, (number, step))
            delta = seen.add_(gradient.sign_(), alpha=self.step).sub_(clean).clamp_(-self.epsilon, self.epsilon)
        return delta

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Of the loss that the steps lower or raise, summed, with respect to perturbed samples [n, C, H, W].

        Args:
            frozen: the surrogate in evaluation mode.
            clean: the samples without their deltas.
            seen: with them, in [0, 1].
            labels: the samples' own [n].
            ids: [n].
            place: of this gradient in the run (round, step): each looks through an augmentation of its own.
        """
        return input_gradient(frozen, seen, self.targets(labels), self.view(ids, *place))[0]

    def view(self, ids: Ids, *place: int) -> View | None:
        """The augmentation at that place of the run."""
        config, source = self.config, self.problem.source
        purpose = key(self.problem.seed, config.name, "noise view", *place)
        return draw_view(config.augment, config.strength, purpose, ids, source.shape[1:])

    def count_errors(
        self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int
    ) -> int:
        """How many perturbed samples the surrogate gets wrong after round `number`."""
        with torch.no_grad():
            predicted = finite(evaluate(frozen, (clean + delta).clamp_(0, 1))).argmax(1)
        return int((predicted != labels).sum())

    def load(self, shard: int, ids: Any) -> tuple[Tensor, Tensor]:
        """Samples in [0, 1] and labels."""
        clean = self.problem.unit_interval(self.problem.reader.take(shard, ids))
        return clean, torch.from_numpy(self.problem.labels[ids]).to(clean.device)


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
        self._errors = dict.fromkeys(self._deltas, 0)

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
        """The samples of a shard by what the network looks at together in round `number`."""
        return [ids[tile] for tile in self.problem.tiles(ids)]

    def error(self) -> float:
        """Over the whole training set."""
        wrong = torch.tensor(sum(self._errors.values()), device=self.problem.world.device)
        return int(self.problem.world.add(wrong)) / len(self.problem.source)

    def results(self) -> Iterator[Event]:
        """Own shards, on the grid."""
        source = self.problem.source
        for shard, deltas in self._deltas.items():
            if shard not in self.problem.done:
                clean = self.problem.reader.take(shard, self.problem.partition.ids(shard))
                budget = self.epsilon * source.levels
                yield ShardResult(shard, delta=to_levels(self._wake(deltas), clean, source.levels, round(budget, 6)))

    def shared_state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def parts(self) -> dict[str, Mapping[str, Any]]:
        """The shards' deltas and how far the sweep is."""
        return {
            f"shard-{shard:05d}": {"delta": delta, "swept": self._swept[shard], "errors": self._errors[shard]}
            for shard, delta in self._deltas.items()
        }

    def restore(self, shared: Mapping[str, Any], saved: Saved) -> None:
        """Load own shards, whoever wrote them."""
        for shard in self._deltas:
            part = saved.load(f"shard-{shard:05d}")
            self._deltas[shard] = part["delta"]
            self._swept[shard], self._errors[shard] = part["swept"], part["errors"]

    def _visit(self, frozen: nn.Module, shard: int, number: int) -> None:
        ids = self.problem.partition.ids(shard)
        deltas, errors = self._deltas[shard], 0
        for group in self.groups(ids, number):
            rows = torch.from_numpy(group - ids[0])
            clean, labels = self.load(shard, group)
            delta = self.move(frozen, clean, self._wake(deltas[rows]), labels, group, number)
            errors += self.count_errors(frozen, clean, delta, labels, group, number)
            deltas[rows] = delta.mul_(self.problem.source.levels).half().cpu()
        self._errors[shard] = errors

    def _wake(self, delta: Tensor) -> Tensor:
        return delta.to(self.problem.world.device).float().div_(self.problem.source.levels)
