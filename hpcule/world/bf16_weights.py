"""A network whose weights are bf16: what torch does not do by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hpcule.world.precision import autocast


def compute_in_bf16(network: nn.Module) -> ExitStack:
    """Let a network, whose weights become bf16 next, take float32 samples, and its BatchNorms keep float32 statistics.

    In bf16, with a mantissa of 8 bits, a running mean would soon stop moving. Closing the result undoes everything.
    """
    undo = ExitStack()
    _replace(network, partial(_cast, network.forward), undo)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            _replace(layer, partial(_normalised, layer), undo)
    return undo


def _replace(module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
    module.forward = forward
    undo.callback(delattr, module, "forward")


def _cast(forward: Callable[..., Any], *inputs: Tensor) -> Any:
    # DeepSpeed switches the caller's autocast off; float32 buffers of a network need one.
    with autocast(inputs[0].device, True):
        return forward(*(values.to(torch.bfloat16) for values in inputs))


def _normalised(layer: _BatchNorm, images: Tensor) -> Tensor:
    """BatchNorm by float32 weights; torch refuses float32 statistics next to bf16 weights."""
    assert layer.weight is not None
    assert layer.momentum is not None
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    weight, bias = layer.weight.float(), layer.bias.float()
    return functional.batch_norm(
        images, layer.running_mean, layer.running_var, weight, bias, layer.training, layer.momentum, layer.eps
    )
