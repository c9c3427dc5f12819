"""Distributed training of one network with DeepSpeed, which may spread the optimizer's state over the ranks (ZeRO).

DeepSpeed reads its place from five environment variables, and asks MPI when one is missing; it adopts a process group
that exists. https://www.deepspeed.ai/docs/config-json/
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcule.config.errors import UsageError
from hpcule.world.engine import EngineState, load_network, rank_buffers
from hpcule.world.group import World
from hpcule.world.launcher import free_port
from hpcule.world.meeting import stay_on_loopback

OptimizerState = Mapping[int, Mapping[str, object]]
"""What an optimizer keeps of each of its parameters, by number and name."""


class DeepSpeedEngine:
    """DeepSpeed without its learning rate schedule, precision and accumulation: they stay those of every engine.

    Args:
        network: float32, on the world's device.
        optimizer: of its parameters. ZeRO replaces them by slices of one flat vector: the update of a value may depend
            on that value and its gradient alone.
        world: all ranks of the run.
        zero: 0 copies everything to every rank, 1 spreads the optimizer's state, 2 its gradients too.
        bf16: compute under autocast; weights and sums of gradients stay float32.
        micro_batch: samples of a rank's largest part.
        parts: of a step, at most.

    Raises:
        UsageError: DeepSpeed is missing, or the world is a part of the run only.
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        *,
        zero: int,
        bf16: bool,
        micro_batch: int,
        parts: int,
    ) -> None:
        if dist.is_initialized() and dist.get_world_size() != world.size:
            raise UsageError(
                f"victim.engine=deepspeed trains one network on all {dist.get_world_size()} workers, here one has "
                f"{world.size}: use `hpcule train`, or victim.engine=ddp"
            )
        # It views weights as plain vectors, which the layout with channels last forbids.
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        values = sum(parameter.numel() for parameter in network.parameters())
        config = {
            "train_batch_size": micro_batch * parts * world.size,
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": parts,
            # Its bucket has 5e8 values by default: 2 GB for the smallest network.
            "zero_optimization": {"stage": zero, "reduce_bucket_size": values},
            "zero_allow_untested_optimizer": True,
            # Without this it switches the caller's autocast off. No module is "safe": gradients travel as float32.
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
            "gradient_clipping": 0.0,  # 1.0 by default
            "steps_per_print": None,
        }
        # What it logs and prints must not mix with our output; its log keeps the stream it was imported with.
        with _environment(_contract(world)), contextlib.redirect_stdout(sys.stderr):
            deepspeed = _import()
            # On a CPU it would compile an operator for sums through shared memory first; gloo does without.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            if not dist.is_initialized():
                stay_on_loopback()
                backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
                # A store in memory: torch's own would listen on all interfaces, for a group of one.
                dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
                atexit.register(dist.destroy_process_group)
            self._engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
        self.network = self._engine
        self._trained, self._optimizer, self._world, self._sliced = network, optimizer, world, zero > 0

    def part(self, last: bool) -> AbstractContextManager[object]:
        """See Engine."""
        self._engine.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See Engine."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> None:
        """See Engine."""
        with warnings.catch_warnings():
            # torch 2.13 renames a function that DeepSpeed 0.19 calls.
            warnings.filterwarnings("ignore", "`torch.distributed.all_gather_into_tensor`", FutureWarning)
            self._engine.step()

    def state(self) -> EngineState:
        """See Engine. What ZeRO spreads is put together: one flat vector for each group of parameters."""
        optimizer = self._optimizer.state_dict()
        if self._sliced:
            optimizer["state"] = self._mapped(optimizer["state"], self._put_together)
        buffers = rank_buffers(self._trained, self._world)
        return {"network": self._trained.state_dict(), "buffers": buffers, "optimizer": optimizer}

    def load(self, state: EngineState) -> None:
        """See Engine."""
        load_network(self._trained, state, self._world)
        optimizer = dict(state["optimizer"])
        if self._sliced:
            # The optimizer moves copies of the weights.
            self._engine.optimizer.refresh_fp32_params()
            optimizer["state"] = self._mapped(optimizer["state"], self._cut)
        self._optimizer.load_state_dict(optimizer)

    def _mapped(self, state: OptimizerState, change: Callable[[Tensor, int], Tensor]) -> OptimizerState:
        """The optimizer's state, whose vectors are changed; `change` learns how long this rank's own slice is."""
        lengths = [len(group["params"][0]) for group in self._optimizer.param_groups]
        return {
            number: {
                name: change(value, lengths[number]) if isinstance(value, Tensor) and value.dim() else value
                for name, value in values.items()
            }
            for number, values in state.items()
        }

    def _put_together(self, own: Tensor, length: int) -> Tensor:
        whole = torch.zeros(self._world.size * length, dtype=own.dtype, device=own.device)
        whole[self._world.rank * length :][:length] = own
        return self._world.add(whole)

    def _cut(self, whole: Tensor, length: int) -> Tensor:
        """This rank's slice of a flat vector, whose padding at its end depends on the number of ranks."""
        padded = torch.zeros(self._world.size * length, dtype=whole.dtype)
        shared = min(len(whole), len(padded))
        padded[:shared] = whole[:shared]
        return padded[self._world.rank * length :][:length]


def _import() -> Any:
    try:
        return importlib.import_module("deepspeed")
    except ImportError:
        raise UsageError('victim.engine=deepspeed, but DeepSpeed is missing: pip install "hpcule[deepspeed]"') from None


def _contract(world: World) -> dict[str, str]:
    """What DeepSpeed expects of its launcher."""
    # It takes the local rank for the number of the GPU; where each rank sees a single one, that is 0.
    local = str(world.device.index if world.device.type == "cuda" else world.place.local_rank)
    # Under Open MPI it insists that both are the same.
    open_mpi = {name: local for name in ("OMPI_COMM_WORLD_LOCAL_RANK",) if name in os.environ}
    return {
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": local,
        "MASTER_ADDR": world.place.address or "127.0.0.1",
        "MASTER_PORT": str(world.place.port or free_port()),
        "DS_ACCELERATOR": world.device.type,
        **open_mpi,
    }


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while; programs that are started later find their own place."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
