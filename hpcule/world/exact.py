"""Sums over ghosts whose result does not depend on how the ghosts are spread over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpcule.config.errors import HpculeError
from hpcule.world.group import World

FRACTION_BITS = 40
"""A float32 of magnitude 2^-16 or more is represented exactly; smaller ones to 2^-41."""
LARGEST = 2.0**18
"""Largest magnitude of one addend: leaves room for 2^4 = 16 of them in the worst case, and millions in practice."""


class Sum:
    """Adds up tensors ghost by ghost and then over the ranks.

    With `exact` it sums in int64 fixed point: integer addition is associative, so the total has the same bits for every
    number of ranks and every order. Without, it sums in the tensors' own floating point, whose last bits depend on the
    order.
    """

    def __init__(self, shapes: Sequence[torch.Size], device: torch.device, *, exact: bool) -> None:
        self._shapes = list(shapes)
        self._exact = exact
        dtype = torch.int64 if exact else torch.float32
        self._largest = torch.zeros((), device=device)
        self._flat = torch.zeros(sum(shape.numel() for shape in shapes), dtype=dtype, device=device)
        self._views = self._parts(self._flat)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Add one ghost's tensors, float32, of the shapes given at construction."""
        if self._exact:
            # Compared in `total` only: a comparison here would wait for the device.
            largest = torch.stack(torch._foreach_norm(list(tensors), float("inf"))).amax()
            self._largest = torch.maximum(self._largest, largest)
        for view, tensor in zip(self._views, tensors, strict=True):
            if self._exact:
                view += (tensor * 2.0**FRACTION_BITS).round_().to(torch.int64)
            else:
                view += tensor

    def total(self, world: World) -> list[Tensor]:
        """The sums over all ranks, float32; this object starts again from zero.

        Raises:
            HpculeError: a value was not finite or too large for the fixed-point sum.
        """
        if self._exact and not bool(self._largest < LARGEST):
            raise HpculeError("a gradient is not finite or above 2^18: lower the learning rate")
        world.add(self._flat)
        # Tensor by tensor: all at once, a large network would need 12 more bytes a weight.
        result = [self._float(view) for view in self._views]
        self._flat.zero_()
        self._largest = torch.zeros_like(self._largest)
        return result

    def _float(self, view: Tensor) -> Tensor:
        return view.to(torch.float64).mul_(2.0**-FRACTION_BITS).to(torch.float32) if self._exact else view.clone()

    def _parts(self, flat: Tensor) -> list[Tensor]:
        sizes = [shape.numel() for shape in self._shapes]
        return [part.view(shape) for part, shape in zip(torch.split(flat, sizes), self._shapes, strict=True)]
