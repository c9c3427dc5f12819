"""A network trained jointly on ghosts, so that the number of ranks is no part of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.craft.method import Problem
from hpcule.data.schedule import Ghost
from hpcule.data.view import View
from hpcule.nets import Featured
from hpcule.nets.frozen import fold_batch_norms
from hpcule.nets.running_statistics import normalising
from hpcule.nets.weight_noise import Place, here
from hpcule.store.checkpoint import PartState
from hpcule.world.exact import Sum
from hpcule.world.gradient_norms import GradientNorms, squared_norm
from hpcule.world.precision import autocast, place


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample [n]."""
    return functional.cross_entropy(logits, targets, reduction="none")


class Surrogate:
    """A network with BatchNorm over ghosts and SGD over global batches.

    Each ghost is one micro-batch and one BatchNorm group; gradients are summed over ghosts and ranks; running
    statistics are updated in ghost order, by less for a ghost that is smaller than others of its batch. A single sample
    has no variance: it is normalised by the running statistics before the step, and adds nothing to them. With
    `problem.exact` the result has the same bits for every number of ranks.
    """

    def __init__(
        self,
        network: nn.Module,
        problem: Problem,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        clip_norm: float | None,
    ) -> None:
        place(network, problem.world.device)
        self.network = network
        self.problem = problem
        self.clip_norm = clip_norm
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        self._decays = [layer.momentum or 0.1 for layer in self._norms]
        self._optimizer = torch.optim.SGD(
            self._parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )
        shapes = [parameter.shape for parameter in self._parameters]
        self._gradients = Sum(shapes, problem.world.device, exact=problem.exact)

    def train(
        self,
        batch: Sequence[Ghost],
        load: Callable[[Ghost], tuple[Tensor, Tensor]],
        rate: float | None = None,
        places: Sequence[Place] = (here,),
    ) -> GradientNorms:
        """One step on a global batch; returns the norms of its ghosts' gradients, before clipping.

        Args:
            batch: all its ghosts, in order; this rank works on those of its own shards.
            load: inputs [n, C, H, W] in [0, 1] and targets [n, ...] of a ghost, or whatever else `loss` takes.
            rate: learning rate of this step; None: that of the step before.
            places: around the weights, whose mean gradient the step follows; statistics and norms are means too.
        """
        if rate is not None:
            self._optimizer.param_groups[0]["lr"] = rate
        world = self.problem.world
        sizes = [ghost.size for ghost in batch]
        size = sum(sizes)
        self.network.train()
        width = self._statistics().numel()
        # Statistics and, last, the squared norm of the gradient.
        rows = torch.zeros(len(batch), width + 1, device=world.device)
        with self._fresh_statistics() as running:
            for number, ghost in enumerate(batch):
                if ghost.shard % world.size == world.rank:
                    inputs, labels = load(ghost)
                    if ghost.size == 1:
                        self._write(running)
                    for place in places:
                        with place(self.network), normalising(self.network, ghost.size):
                            loss = self.loss(inputs, labels) / (size * len(places))
                            gradients = torch.autograd.grad(loss, self._parameters)
                        self._gradients.add(gradients)
                        rows[number, :width] += self._statistics() / len(places)
                        rows[number, width] += squared_norm(gradients) * len(places)
        # Each row comes from one rank, and adding zeros to it is exact in any order.
        world.add(rows)
        self._fold(rows[:, :width], sizes)
        for parameter, gradient in zip(self._parameters, self._gradients.total(world), strict=True):
            parameter.grad = gradient
        whole = float(squared_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None]))
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_norm, foreach=False)
        self._optimizer.step()
        self.updated(batch)
        # A ghost's gradient is its share of the batch's mean.
        squares = [square * (size / own) ** 2 for square, own in zip(rows[:, width].tolist(), sizes, strict=True)]
        return GradientNorms.of(sizes, squares, whole)

    def updated(self, batch: Sequence[Ghost]) -> None:
        """What else follows the weights after a step on this batch: nothing."""

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of what `train` has loaded of a ghost, summed over its samples, in training mode."""
        with autocast(self.problem.world.device, self.problem.autocast):
            logits = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return self.problem.task.losses(logits.float(), labels).sum()

    def frozen(self, *, fold: bool = True) -> nn.Module:
        """A copy for the noise phase: evaluation mode, no parameter gradients, BatchNorm folded into convolutions."""
        frozen = copy.deepcopy(self.network).eval().requires_grad_(False)
        if fold:
            fold_batch_norms(frozen, torch.zeros(1, *self.problem.source.shape, device=self.problem.world.device))
        place(frozen, self.problem.world.device, torch.bfloat16 if self.problem.autocast else torch.float32)
        return frozen

    def state(self) -> PartState:
        """Weights, statistics and momenta."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: PartState) -> None:
        """Restore the network and its optimizer."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))

    def _statistics(self) -> Tensor:
        """Running mean and variance of all BatchNorm layers in one row."""
        buffers = [buffer for layer in self._norms for buffer in (layer.running_mean, layer.running_var)]
        return torch.cat([buffer for buffer in buffers if buffer is not None]) if buffers else torch.zeros(0)

    @contextmanager
    def _fresh_statistics(self) -> Iterator[Tensor]:
        """Use running statistics of the last ghost alone inside the context, which gives the old ones, and put these
        back after it."""
        kept = self._statistics().clone()
        for layer in self._norms:
            layer.momentum = 1.0
        yield kept
        for layer, decay in zip(self._norms, self._decays, strict=True):
            layer.momentum = decay
        self._write(kept)

    def _fold(self, rows: Tensor, sizes: Sequence[int]) -> None:
        """Update the running statistics with one ghost after the other, each by its share of the largest one."""
        running = self._statistics()
        if running.numel() == 0:
            return
        decay = torch.cat(
            [torch.full((2 * layer.num_features,), d) for layer, d in zip(self._norms, self._decays, strict=True)]
        ).to(rows.device)
        for row, size in zip(rows, sizes, strict=True):
            if size > 1:
                running = torch.lerp(running, row, decay * (size / max(sizes)))
        self._write(running)

    def _write(self, statistics: Tensor) -> None:
        position = 0
        for layer in self._norms:
            for buffer in (layer.running_mean, layer.running_var):
                assert buffer is not None
                buffer.copy_(statistics[position : position + buffer.numel()])
                position += buffer.numel()


def input_gradient(
    frozen: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    view: View | None = None,
    losses: Callable[[Tensor, Tensor], Tensor] = cross_entropies,
) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss with respect to the inputs, and the logits.

    Args:
        frozen: a network without parameter gradients.
        inputs: [n, C, H, W] in [0, 1].
        targets: int64 [n], or whatever else `losses` takes.
        view: an augmentation that the network looks through.
        losses: of logits and targets [n].

    Returns:
        Gradient float32 [n, C, H, W] and logits float32 [n, K].
    """
    leaf = inputs.detach().requires_grad_()
    logits = logits_of(frozen, view.apply(leaf) if view else leaf)
    loss = losses(logits, targets).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient, logits.detach()


def logits_of(frozen: nn.Module, inputs: Tensor) -> Tensor:
    """Logits float32 [n, K] of a frozen network, computed in its own precision."""
    logits: Tensor = frozen(_as_weights(frozen, inputs))
    return logits.float()


def features(frozen: nn.Module, inputs: Tensor) -> Tensor:
    """What the last layer of a frozen network sees, float32 [n, D], computed in its own precision."""
    return cast(Featured, frozen).features(_as_weights(frozen, inputs)).float()


def _as_weights(frozen: nn.Module, inputs: Tensor) -> Tensor:
    return inputs.to(next(frozen.parameters()).dtype, memory_format=torch.channels_last)
