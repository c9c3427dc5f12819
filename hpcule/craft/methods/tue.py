"""TUE: transferable unlearnable examples (Ren, Xu, Wan, Ma, Sun, Tang; ICLR 2023, arXiv 2210.10114), its noise alone.

The authors add class separation of the deltas to a contrastive loss. Their published runs for SimCLR and SimSiam give
that loss a weight of 0, so that no network enters the noise. What is left pushes the classes' centres apart, and is
done here on all samples at once. With MoCo they add both: that is CP with `separation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, LocalConfig, MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Saved, Settings, ShardResult, State, Step
from hpcule.craft.parts.levels import to_levels, uniform_start
from hpcule.craft.parts.model_free import TILE, ModelFree
from hpcule.craft.parts.separation import of_centres
from hpcule.world.exact import Sum
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class TUEConfig(BoundedConfig, LocalConfig):
    """Defaults are those of the authors' command for SimCLR."""

    name: str = "tue"
    steps: int = setting(4000, at_least=1)
    """Signed steps at most; the run ends with the first that moves nothing."""
    step_size: float | None = setting(None, above=0)
    """Levels a step; None: epsilon / 10."""

    def resolved(self) -> Self:
        """The same settings with the step written out."""
        return replace(self, step_size=self.step_size or self.epsilon / 10)


class TransferableUnlearnable(ModelFree[TUEConfig]):
    """Random noise by sample, moved until classes are far apart; all ranks step together."""

    facts: ClassVar[Facts] = Facts(
        title="TUE: transferable unlearnable examples, class separation alone",
        data="images",
        task="classification, supervised or by contrastive pre-training",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="supervised and contrastive training, other datasets",
        paper="arXiv 2210.10114",
        cost="no surrogate: some tens of sums of the deltas",
        weaknesses="nearly one pattern a class, found by averaging a class; "
        "undone by whatever moves or averages pixels, as class-wise noise",
    )
    config_class: ClassVar[type[MethodConfig]] = TUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {"small": {}, "smoke": {"steps": 100}}
    loss: ClassVar[str | None] = "overlap"

    def __init__(self, config: TUEConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        source, device = problem.source, problem.world.device
        assert source.labels is not None
        self.counts = torch.from_numpy(np.bincount(source.labels, minlength=source.class_count)).to(device)
        classes = (source.class_count, *source.shape)
        self._sums = Sum([torch.Size(classes), torch.Size([1])], device, exact=problem.exact)
        self._distances = Sum([torch.Size(classes[:1])], device, exact=problem.exact)
        self._deltas = {shard: self._start(shard) for shard in problem.owned}
        self.step = 0
        self.finished = False

    def prepare(self) -> Iterator[Event]:
        """Push the centres apart until nothing moves, or for as many steps as there are."""
        centres = None
        while not self.finished:
            if centres is None:
                centres, _ = self._move(None)
            spreads = self._spreads(centres)
            gradient, overlap = of_centres(centres.flatten(1), spreads, self.counts)
            centres, moved = self._move(gradient.sign_().neg_().view_as(centres))
            self.step += 1
            self.finished = not moved or self.step == self.config.steps
            yield Step("separation", self.step, self.config.steps, {"step": self.step, "overlap": overlap})

    def answer(self, shard: int) -> ShardResult:
        """The deltas on the grid."""
        clean, levels = self.problem.reader.shard(shard), self.problem.source.levels
        delta = self._deltas[shard].float().div_(levels)
        return ShardResult(shard, delta=to_levels(delta, clean, levels, self.config.epsilon, self.config.flat))

    def state(self) -> State:
        """Deltas, and how far they are."""
        parts = {_part(shard): {"delta": delta} for shard, delta in self._deltas.items()}
        return State({"step": self.step, "finished": self.finished}, parts)

    def restore(self, saved: Saved) -> None:
        """Restore the deltas and the step."""
        shared = saved.load("shared")
        self.step, self.finished = shared["step"], shared["finished"]
        for shard in self._deltas:
            self._deltas[shard] = saved.load(_part(shard))["delta"]

    def _start(self, shard: int) -> Tensor:
        """Uniform in the budget [n, C, H, W]; float16 in levels, as deltas rest."""
        ids, shape = self.problem.partition.ids(shard), self.problem.source.shape
        purpose = key(self.problem.seed, "tue start")
        deltas = torch.empty(len(ids), *shape, dtype=torch.float16)
        for tile in self.problem.tiles(ids, TILE):
            deltas[tile] = uniform_start(purpose, ids[tile], shape, self.config.epsilon)
        return deltas

    def _move(self, direction: Tensor | None) -> tuple[Tensor, bool]:
        """One step of every class [K, C, H, W], within budget and box; the centres then, and whether anything moved."""
        assert self.config.step_size is not None
        source, device, epsilon = self.problem.source, self.problem.world.device, self.config.epsilon
        for shard, deltas in self._deltas.items():
            ids = self.problem.partition.ids(shard)
            sums = torch.zeros(source.class_count, *source.shape, device=device)
            moved = torch.zeros(1, device=device)
            for tile in self.problem.tiles(ids, TILE):
                labels = torch.from_numpy(self.problem.classes(ids[tile])).to(device)
                delta = deltas[tile].to(device)
                if direction is not None:
                    clean = self.problem.reader.take(shard, ids[tile]).to(device).float()
                    steps = direction[labels].float() * self.config.step_size
                    seen = (delta.float() + steps).clamp_(-epsilon, epsilon).add_(clean).clamp_(0, source.levels)
                    stepped = seen.sub_(clean).half()
                    moved = torch.maximum(moved, (stepped != delta).any().float())
                    deltas[tile], delta = stepped.cpu(), stepped
                sums.index_add_(0, labels, delta.float())
            self._sums.add([sums / source.levels, moved])
        sums, moved = self._sums.total(self.problem.world)
        return sums.double() / self.counts.clamp_min(1)[:, None, None, None], bool(moved > 0)

    def _spreads(self, centres: Tensor) -> Tensor:
        """Mean distance [K] of a class's deltas from its centre."""
        device, levels = centres.device, self.problem.source.levels
        for shard, deltas in self._deltas.items():
            ids = self.problem.partition.ids(shard)
            distances = torch.zeros(len(centres), device=device)
            for tile in self.problem.tiles(ids, TILE):
                labels = torch.from_numpy(self.problem.classes(ids[tile])).to(device)
                away = deltas[tile].to(device).float().div_(levels) - centres[labels].float()
                distances.index_add_(0, labels, away.flatten(1).norm(dim=1))
            self._distances.add([distances])
        (total,) = self._distances.total(self.problem.world)
        return total.double() / self.counts.clamp_min(1)


def _part(shard: int) -> str:
    return f"shard-{shard:05d}"
