"""Norms of a victim's gradients, step by step, for the gradient noise scale."""

# Annotations are evaluated here: torch compares those of a communication hook with its own classes.
import torch
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from hpcule.world.gradient_norms import GradientNorms, squared_norm
from hpcule.world.group import World


class GradientMeter:
    """Watches the backward passes of one network under DDP.

    On several workers the groups are the workers' shares of a batch, seen in DDP's communication hook before they are
    averaged. On a single one they are the parts that a batch is cut into.
    """

    def __init__(self, network: nn.Module, world: World, every: int) -> None:
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._world = world
        self._every = every
        self._step, self._due = 0, False
        self._sizes: list[int] = []
        self._squares: list[Tensor] = []
        self._before: list[Tensor] = []
        self.log: list[tuple[int, GradientNorms]] = []
        """Every `every`-th step, counted from 0, and its norms."""
        if isinstance(network, DistributedDataParallel):
            network.register_comm_hook(self, _measured)

    def before_step(self, step: int, *, comparable: bool) -> None:
        """Prepare the meter before the first part of a step; one whose workers all take the same samples shows nothing,
        and is left out."""
        self._step, self._due = step, comparable and step % self._every == 0
        self._sizes, self._squares, self._before = [], [], []

    def after_part(self, samples: int) -> None:
        """Record the gradients after the backward pass of a part with `samples` samples."""
        self._sizes.append(samples)
        if self._due and self._world.size == 1:
            gradients = self._gradients()
            before = self._before or [torch.zeros_like(gradient) for gradient in gradients]
            self._squares.append(squared_norm([new - old for new, old in zip(gradients, before, strict=True)]))
            self._before = [gradient.clone() for gradient in gradients]

    def after_parts(self) -> None:
        """Combine the parts after the last one of a step, before the optimizer moves."""
        if not self._due:
            return
        sizes, squares = self._of_all_ranks()
        total = sum(sizes)
        # The loss is scaled so that a group's gradient is (group / batch) times its mean, times the number of workers.
        scales = [(total / (size * self._world.size)) ** 2 for size in sizes]
        means = [scale * square for scale, square in zip(scales, squares, strict=True)]
        self.log.append((self._step, GradientNorms.of(sizes, means, float(squared_norm(self._gradients())))))

    def all_reduce(self, bucket: GradBucket) -> Future[Tensor]:
        """DDP's mean over the workers of a bucket, whose own gradient is looked at first."""
        if self._due:
            self._squares.append(squared_norm([bucket.buffer()]))
        return allreduce_hook(self._world.group, bucket)  # type: ignore[arg-type]

    def _of_all_ranks(self) -> tuple[list[int], list[float]]:
        if self._world.size == 1:
            return self._sizes, [float(square) for square in self._squares]
        own = [float(sum(self._sizes)), float(torch.stack(self._squares).sum())]
        rows = torch.zeros(self._world.size, 2, dtype=torch.float64, device=self._world.device)
        rows[self._world.rank] = torch.tensor(own, dtype=torch.float64)
        sizes, squares = self._world.add(rows).t().tolist()
        return [int(size) for size in sizes], squares

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]


def _measured(meter: GradientMeter, bucket: GradBucket) -> Future[Tensor]:
    """The hook; the names of its parameters are part of torch's contract."""
    return meter.all_reduce(bucket)
