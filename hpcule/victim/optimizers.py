"""Optimizers by name: torch's, and the two that adapt the rate to each tensor for large batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hpcule.victim.config import VictimConfig

ParameterGroup = dict[str, Any]
"""Parameters that share settings, and these by name, as torch keeps them."""
TRUST = 1e-3
"""LARS's trust coefficient, as published for ResNet-50."""


class _PerTensor(Optimizer, ABC):
    """An optimizer whose step treats each tensor by itself."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure."""
        assert closure is None
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._step(weights, weights.grad, group)

    @abstractmethod
    def _step(self, weights: Tensor, gradient: Tensor, group: ParameterGroup) -> None: ...


class LARS(_PerTensor):
    """Layer-wise adaptive rate scaling (You et al. 2017, https://arxiv.org/abs/1708.03888): SGD with momentum.

    With g the gradient, w a tensor and d the weight decay, the rate of the tensor is
    `lr * trust * ||w|| / (||g|| + d * ||w||)`; it is part of the momentum v: `v = momentum * v + rate * (g + d * w)`,
    `w = w - v`. A group with `adapt` false, or a norm of 0, has a ratio of 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[ParameterGroup],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = TRUST,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        super().__init__(params, defaults)

    def _step(self, weights: Tensor, gradient: Tensor, group: ParameterGroup) -> None:
        state, decay = self.state[weights], group["weight_decay"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weights)
        rate: float | Tensor = group["lr"]
        if group["adapt"]:
            norm = weights.norm()
            rate = group["lr"] * _ratio(group["trust"] * norm, gradient.norm() + decay * norm)
        update = gradient + decay * weights
        weights -= state["momentum_buffer"].mul_(group["momentum"]).add_(update * rate)


class LAMB(_PerTensor):
    """Layer-wise adaptive moments (You et al. 2019, https://arxiv.org/abs/1904.00962): Adam with a rate per tensor.

    With Adam's bias-corrected moments m and v, a tensor w and d the weight decay, `u = m / (sqrt(v) + eps) + d * w` and
    `w = w - lr * (||w|| / ||u||) * u`: algorithm 2 with the identity for phi. A group with `adapt` false, or a norm of
    0, has a ratio of 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[ParameterGroup],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": adapt}
        super().__init__(params, defaults)

    def _step(self, weights: Tensor, gradient: Tensor, group: ParameterGroup) -> None:
        state, (beta1, beta2) = self.state[weights], group["betas"]
        if "step" not in state:
            state.update(step=0, exp_avg=torch.zeros_like(weights), exp_avg_sq=torch.zeros_like(weights))
        state["step"] += 1
        first = state["exp_avg"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["step"])
        second = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2) / (1 - beta2 ** state["step"])
        update = first / (second.sqrt() + group["eps"]) + group["weight_decay"] * weights
        ratio = _ratio(weights.norm(), update.norm()) if group["adapt"] else 1.0
        weights -= group["lr"] * ratio * update


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where((above > 0) & (below > 0), above / below, 1.0)


def build_optimizer(config: VictimConfig, network: nn.Module) -> Optimizer:
    """The recipe's optimizer of a network's parameters; `momentum` is the first beta of Adam and LAMB."""
    rate, decay, betas = config.learning_rate, config.weight_decay, (config.momentum, 0.999)
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, betas=betas, weight_decay=decay)
    if config.optimizer == "lars":
        return LARS(_groups(network, decay), lr=rate, momentum=config.momentum)
    return LAMB(_groups(network, decay), lr=rate, betas=betas)


def _groups(network: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Matrices and kernels; and biases and BatchNorm's parameters, all vectors, without decay and adaptation."""
    vectors = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    return [
        {"params": others, "weight_decay": weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]
