"""An optimizer whose parameters DeepSpeed's ZeRO has cut into slices, one for each rank."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import StateDict

from hpcule.world.group import World

Numbered = Sequence[tuple[int, nn.Parameter]]
"""Parameters, and their numbers among all parameters of an optimizer."""


@dataclass(frozen=True)
class Slices:
    """Parameters of which every rank's optimizer moves one flat vector.

    The parameters form pieces. A piece is flattened, padded with zeros and cut into one slice for each rank; a rank's
    vector is its slices of all pieces. In ZeRO's stages 1 and 2 all parameters are one piece, in stage 3 each is one.
    """

    pieces: Sequence[Sequence[torch.Size]]
    """Shapes of the parameters of each piece."""
    lengths: Sequence[int]
    """Number of values in a rank's slice of each piece."""
    world: World

    def put_together(self, own: Tensor) -> Iterator[Tensor]:
        """The parameters, or what the optimizer keeps of them, on every rank; a collective that goes on piece by piece
        with the iteration."""
        for shapes, part in zip(self.pieces, torch.split(own, list(self.lengths)), strict=True):
            rows = torch.zeros(self.world.size, len(part), dtype=own.dtype, device=own.device)
            rows[self.world.rank] = part
            # Each row comes from one rank, and adding zeros to it is exact in any order.
            whole, sizes = self.world.add(rows).view(-1), [shape.numel() for shape in shapes]
            for shape, values in zip(shapes, torch.split(whole[: sum(sizes)], sizes), strict=True):
                yield values.view(shape)

    def cut(self, whole: Sequence[Tensor]) -> Tensor:
        """This rank's vector of parameters, or of what the optimizer keeps of them."""
        tensors, parts = iter(whole), []
        for shapes, length in zip(self.pieces, self.lengths, strict=True):
            piece = torch.cat([tensor.reshape(-1) for tensor in itertools.islice(tensors, len(shapes))])
            part = piece[self.world.rank * length :][:length]
            parts.append(functional.pad(part, (0, length - len(part))))
        return torch.cat(parts)


class SlicedOptimizer:
    """Reads and writes an optimizer's state as if it were that of a single rank, whose parameters are whole."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Take note of the parameters of an optimizer that is not cut yet; those without a gradient never are."""
        self._optimizer = optimizer
        count = itertools.count()
        self._numbers = [[next(count) for _ in group["params"]] for group in optimizer.param_groups]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._trained = [pair for pair in enumerate(parameters) if pair[1].requires_grad]
        self._shapes = [parameter.shape for _, parameter in self._trained]
        self._cut: list[tuple[Tensor, Numbered, Slices]] = []

    def has_been_cut(self, vectors: Iterable[tuple[Tensor, int]], world: World, zero: int) -> None:
        """Take note of the vectors that the optimizer of this rank moves from now on.

        Args:
            vectors: float32, each with the number of parameters of which it has slices, in their order.
            world: the ranks.
            zero: ZeRO's stage, 1 to 3.
        """
        start = 0
        for vector, count in vectors:
            part = slice(start, start + count)
            slices = Slices([self._shapes[part]], [vector.numel()], world)
            if zero == 3:
                shapes = self._shapes[part]
                slices = Slices(
                    [[shape] for shape in shapes], [-(-shape.numel() // world.size) for shape in shapes], world
                )
            self._cut.append((vector, self._trained[part], slices))
            start += count
        assert start == len(self._trained)

    def weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Parameters and their float32 weights, on every rank; a collective that goes on with the iteration."""
        for vector, trained, slices in self._cut:
            for (_, parameter), weights in zip(trained, slices.put_together(vector.detach()), strict=True):
                yield parameter, weights

    def state(self, keep: Callable[[Tensor], Tensor]) -> StateDict:
        """What the optimizer of a single rank would save, of which `keep` returns what is kept; a collective."""
        state: dict[int, dict[str, object]] = {}
        for vector, trained, slices in self._cut:
            for name, value in self._optimizer.state[vector].items():
                # Copies: parameters that shared Adam's counter would each count every step in it.
                copies = (copy.deepcopy(value) for _ in trained)
                values = map(keep, slices.put_together(value)) if _is_cut(value) else copies
                for (number, _), one in zip(trained, values, strict=True):
                    state.setdefault(number, {})[name] = one
        settings = [
            {**group, "params": n} for group, n in zip(self._optimizer.param_groups, self._numbers, strict=True)
        ]
        return {"state": state, "param_groups": settings}

    @torch.no_grad()
    def load(self, weights: Mapping[nn.Parameter, Tensor], saved: StateDict) -> None:
        """Go on from weights and from what `state` returned."""
        for vector, trained, slices in self._cut:
            vector.copy_(slices.cut([weights[parameter] for _, parameter in trained]))
            states = [saved["state"].get(number, {}) for number, _ in trained]
            self._optimizer.state[vector] = {
                name: slices.cut(values).to(vector.device) if any(map(_is_cut, values)) else values[0]
                for name, values in ((name, [state[name] for state in states]) for name in states[0])
            }
        for group, settings in zip(self._optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({name: value for name, value in settings.items() if name != "params"})

    def forget(self) -> None:
        """Free the optimizer's state, not the weights."""
        self._optimizer.state.clear()


def _is_cut(value: object) -> bool:
    """Whether an optimizer keeps this for each value of a parameter; Adam's count of steps is a tensor, too."""
    return isinstance(value, Tensor) and value.dim() > 0
