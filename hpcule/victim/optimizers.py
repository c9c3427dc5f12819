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
    """An optimizer whose step treats each tensor by itself, and all of a group by one operator for all of them: a GPU
    waits longer for each start of an operator than it computes on a tensor."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure."""
        assert closure is None
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if weights:
                self._step(weights, [parameter.grad for parameter in weights], group)

    @abstractmethod
    def _step(self, weights: list[Tensor], gradients: list[Tensor], group: ParameterGroup) -> None: ...

    def _kept(self, name: str, weights: list[Tensor]) -> list[Tensor]:
        """What is kept of each tensor under a name, zeros at first."""
        for parameter in weights:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in weights]


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

    def _step(self, weights: list[Tensor], gradients: list[Tensor], group: ParameterGroup) -> None:
        decay, momenta = group["weight_decay"], self._kept("momentum_buffer", weights)
        updates = list(torch._foreach_mul(weights, decay))
        torch._foreach_add_(updates, gradients)
        if group["adapt"]:
            norms = _norms(weights)
            _scale(updates, group["lr"] * _ratio(group["trust"] * norms, _norms(gradients) + decay * norms))
        else:
            torch._foreach_mul_(updates, group["lr"])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        torch._foreach_sub_(weights, momenta)


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

    def _step(self, weights: list[Tensor], gradients: list[Tensor], group: ParameterGroup) -> None:
        beta1, beta2 = group["betas"]
        steps = [self.state[parameter].get("step", 0) + 1 for parameter in weights]
        for parameter, step in zip(weights, steps, strict=True):
            self.state[parameter]["step"] = step
        means, squares = self._kept("exp_avg", weights), self._kept("exp_avg_sq", weights)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
        updates = list(torch._foreach_div(means, [1 - beta1**step for step in steps]))
        below = torch._foreach_div(squares, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, group["eps"])
        torch._foreach_div_(updates, below)
        torch._foreach_add_(updates, torch._foreach_mul(weights, group["weight_decay"]))
        if group["adapt"]:
            _scale(updates, group["lr"] * _ratio(_norms(weights), _norms(updates)))
        else:
            torch._foreach_mul_(updates, group["lr"])
        torch._foreach_sub_(weights, updates)


class AveragedSGD(torch.optim.SGD):
    """SGD whose weights are replaced every `EVERY` steps by a running mean of the weights at such steps.

    Lookahead (Zhang et al. 2019, https://arxiv.org/abs/1907.08610) with a memory that grows with the share p of the
    run that is done, `MEMORY * p^3`: early weights are forgotten, and the last ones averaged. A group's `memory` is set
    before its steps, as its `lr` is.
    """

    EVERY = 5
    MEMORY = 0.77

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float, nesterov: bool
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        for group in self.param_groups:
            group["memory"], group["taken"] = 0.0, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure."""
        assert closure is None
        super().step()
        for group in self.param_groups:
            group["taken"] += 1
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["taken"] % self.EVERY or not weights:
                continue
            for weight in weights:
                if "mean" not in self.state[weight]:
                    self.state[weight]["mean"] = weight.detach().clone()
            means = [self.state[weight]["mean"] for weight in weights]
            torch._foreach_lerp_(means, weights, 1 - group["memory"])
            torch._foreach_copy_(weights, means)


def _norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of each tensor [number of tensors]."""
    return torch.stack(torch._foreach_norm(tensors))


def _scale(tensors: list[Tensor], factors: Tensor) -> None:
    """Multiply each tensor by its factor, in place, without knowing the factors on the host."""
    torch._foreach_mul_(tensors, list(factors.unbind()))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where((above > 0) & (below > 0), above / below, 1.0)


def build_optimizer(config: VictimConfig, network: nn.Module) -> Optimizer:
    """The recipe's optimizer of a network's parameters; `momentum` is the first beta of Adam and LAMB."""
    rate, decay, betas = config.learning_rate, config.weight_decay, (config.momentum, 0.999)
    if config.optimizer == "sgd":
        kind = AveragedSGD if config.average_weights else torch.optim.SGD
        return kind(
            network.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay, nesterov=config.nesterov
        )
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
