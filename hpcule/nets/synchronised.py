"""BatchNorm over the batches of all ranks.

torch's own SyncBatchNorm refuses tensors on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpcule.world.group import World


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks.

    Every rank's loss depends on the sum, so its gradient is the sum of all ranks' gradients.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.add(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.world.add(gradients[0].clone()), None


class SynchronisedBatchNorm(nn.Module):
    """Stands in for a BatchNorm that has weights and running statistics, and shares them.

    In training the ranks add up (sum, sum of squares, count), so that batches of unequal size count as one; all ranks
    must call it together. In evaluation each rank works by itself with the running statistics.
    """

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        super().__init__()
        assert norm.affine
        assert norm.track_running_stats
        assert norm.momentum is not None
        self.eps, self.momentum, self._world = norm.eps, norm.momentum, world
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Normalise [b, C, ...] by channel, in the weights' precision; the result has the type of the images."""
        mean, variance = self._batch_statistics(images) if self.training else (self.running_mean, self.running_var)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1) + (1,) * (images.dim() - 2)
        shift = self.bias - mean * scale
        return (images * scale.view(shape) + shift.view(shape)).to(images.dtype)

    def _batch_statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        exact = images.to(self.weight.dtype)
        dims = [dim for dim in range(images.dim()) if dim != 1]
        count = exact.new_tensor([images.numel() // images.shape[1]])
        local = torch.cat([exact.sum(dims), exact.square().sum(dims), count])
        total: Tensor = _SumOverRanks.apply(local, self._world)  # type: ignore[no-untyped-call]
        n = total[-1].detach()
        mean, mean_square = (total[:-1] / n).chunk(2)
        # Rounding may leave a channel that is constant slightly below 0.
        variance = (mean_square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        return mean, variance


def synchronise(network: nn.Module, world: World) -> None:
    """Replace every BatchNorm inside a network, which keeps its parameters and the names of its state."""
    if world.size == 1:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SynchronisedBatchNorm(child, world))
