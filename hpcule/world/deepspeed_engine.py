"""Distributed training of one network with DeepSpeed, which may spread its state over the ranks (ZeRO).

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
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcule.config.errors import DivergedError, UsageError
from hpcule.world.bf16_weights import compute_in_bf16
from hpcule.world.engine import EngineState, load_network, rank_buffers
from hpcule.world.group import World
from hpcule.world.launcher import free_port
from hpcule.world.meeting import stay_on_loopback
from hpcule.world.sliced_optimizer import SlicedOptimizer

BUCKET = 2**22
"""Number of values that travel together: 16 MiB, where DDP takes 25 and DeepSpeed by default up to 2 GB."""
LARGEST_WHOLE = 100_000
"""Values of a parameter that stage 3 leaves whole on every rank, by default in DeepSpeed too; of a network with fewer
than a thousand times as many, a thousandth."""


@dataclass(frozen=True, kw_only=True)
class DeepSpeedConfig:
    """What DeepSpeed spreads over the ranks, and how it computes."""

    zero: Literal[0, 1, 2, 3]
    """Stage: 0 copies everything to every rank, 1 spreads the optimizer's state, 2 the gradients too, 3 the weights."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What stays in main memory: the optimizer's state, from stage 1 on, and in stage 3 the parameters too."""
    bf16: bool = False
    """Compute under autocast; weights and sums of gradients stay float32."""
    bf16_weights: bool = False
    """Weights and activations are bf16, and the optimizer moves float32 copies of them; from stage 2 on."""
    clip_norm: float | None = None
    """Largest norm of a step's gradient over all parameters."""
    micro_batch: int
    """Samples of a rank's largest part."""
    parts: int
    """Parts of a step, at most."""

    def settings(self, world: World, values: int) -> dict[str, object]:
        """DeepSpeed's own settings for a network with this number of values."""
        rests = {"device": "cpu", "pin_memory": world.device.type == "cuda"}
        offload = {"offload_optimizer": rests, "offload_param": rests}
        kept = {"none": (), "optimizer": ("offload_optimizer",), "parameters": tuple(offload)}[self.offload]
        bucket = min(values, BUCKET)
        return {
            "train_batch_size": self.micro_batch * self.parts * world.size,
            "train_micro_batch_size_per_gpu": self.micro_batch,
            "gradient_accumulation_steps": self.parts,
            "zero_optimization": {
                "stage": self.zero,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": BUCKET,
                "stage3_prefetch_bucket_size": bucket,
                "stage3_max_live_parameters": bucket,
                # Else weights that come back in the backward pass, which is all of them, are never freed.
                "stage3_max_reuse_distance": 0,
                "stage3_param_persistence_threshold": min(LARGEST_WHOLE, values // 1000),
                # A step copies the gradients of this many values at a time.
                "sub_group_size": min(values // 8, BUCKET),
                # It replaces torch.nn.functional.linear for the whole process.
                "memory_efficient_linear": False,
                **{name: offload[name] for name in kept},
            },
            "zero_allow_untested_optimizer": True,
            # Its own optimizers for offloaded state are compiled first.
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": self.bf16_weights},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            # Without this it switches the caller's autocast off. No module is "safe": gradients travel as float32.
            "torch_autocast": {"enabled": self.bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
            "gradient_clipping": self.clip_norm or 0.0,  # 1.0 by default
            "steps_per_print": None,
        }


class DeepSpeedEngine:
    """DeepSpeed without its learning rate schedule and accumulation: they stay those of every engine.

    Args:
        network: float32, on the world's device.
        optimizer: of its parameters. ZeRO replaces them by slices of flat vectors: the update of a value may depend
            on that value and its gradient alone.
        world: all ranks of the run.
        config: what is spread, and how it is computed.

    Raises:
        UsageError: DeepSpeed is missing, or the world is a part of the run only.
    """

    network: nn.Module

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, world: World, config: DeepSpeedConfig
    ) -> None:
        if dist.is_initialized() and dist.get_world_size() != world.size:
            raise UsageError(
                f"victim.engine=deepspeed trains one network on all {dist.get_world_size()} workers, here one has "
                f"{world.size}: use `hpcule train`, or victim.engine=ddp"
            )
        # It views weights as plain vectors, which the layout with channels last forbids.
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        settings = config.settings(world, sum(parameter.numel() for parameter in network.parameters()))
        self._undo = compute_in_bf16(network) if config.bf16_weights else ExitStack()
        self._trained, self._optimizer, self._world, self._config = network, optimizer, world, config
        self._sliced = SlicedOptimizer(optimizer) if config.zero else None
        # torch 2.13 renames functions that DeepSpeed 0.19 calls.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)
        if config.zero == 3:
            # It reads this one in forward passes, too.
            self._undo.enter_context(_environment({"LOCAL_RANK": _contract(world)["LOCAL_RANK"]}))
        # What it logs and prints must not mix with our output; its log keeps the stream it was imported with.
        with _environment(_contract(world)), contextlib.redirect_stdout(sys.stderr):
            self._deepspeed = _import()
            # On a CPU it would compile an operator for sums through shared memory first; gloo does without.
            self._deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            if not dist.is_initialized():
                stay_on_loopback()
                backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
                # A store in memory: torch's own would listen on all interfaces, for a group of one.
                dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
                atexit.register(dist.destroy_process_group)
            self._engine, *_ = self._deepspeed.initialize(model=network, optimizer=optimizer, config=settings)
        self.network = self._engine
        if self._sliced:
            zero = self._engine.optimizer
            if config.zero == 3:
                vectors, groups = zero.fp32_partitioned_groups_flat, zero.fp16_groups
            else:
                vectors, groups = [group["params"][0] for group in optimizer.param_groups], zero.bit16_groups
            self._sliced.has_been_cut(zip(vectors, map(len, groups), strict=True), world, config.zero)

    def part(self, last: bool) -> AbstractContextManager[object]:
        """See Engine."""
        self._engine.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See Engine."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> None:
        """See Engine.

        Raises:
            DivergedError: a gradient is not finite; DeepSpeed leaves such a step out.
        """
        self._engine.step()
        if not self._engine.was_step_applied():
            raise DivergedError("the victim diverged: lower victim.learning_rate")

    def state(self) -> EngineState:
        """See Engine. What ZeRO spreads is put together in rank 0's main memory, tensor by tensor."""
        network, buffers = self._trained.state_dict(), rank_buffers(self._trained, self._world)
        if not self._sliced:
            return {"network": network, "buffers": buffers, "optimizer": self._optimizer.state_dict()}
        weights = {parameter: self._kept(whole) for parameter, whole in self._whole_weights()}
        network |= {name: weights[parameter] for name, parameter in self._trained.named_parameters()}
        return {"network": network, "buffers": buffers, "optimizer": self._sliced.state(self._kept)}

    def load(self, state: EngineState) -> None:
        """See Engine."""
        with self._gathered(list(self._trained.parameters()), written=True):
            load_network(self._trained, state, self._world)
        if self._sliced:
            weights = {parameter: state["network"][name] for name, parameter in self._trained.named_parameters()}
            self._sliced.load(weights, state["optimizer"])
        else:
            self._optimizer.load_state_dict(state["optimizer"])

    def release(self) -> None:
        """See Engine."""
        if self._sliced and (self._config.zero == 3 or self._config.bf16_weights):
            self._sliced.forget()
            for parameter, whole in self._whole_weights():
                parameter.data = whole
        self._engine.destroy()
        for module in self._trained.modules():
            # Stage 3 puts its own dictionaries in place of the modules'.
            module._parameters = dict(module._parameters)
        self._undo.close()

    def _whole_weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """All parameters and their float32 weights, on every rank; a collective that goes on with the iteration."""
        assert self._sliced is not None
        yield from self._sliced.weights()
        for parameter in self._trained.parameters():
            if not parameter.requires_grad:
                with self._gathered([parameter]):
                    whole = parameter.detach().float().clone()
                yield parameter, whole

    def _gathered(self, parameters: list[nn.Parameter], written: bool = False) -> AbstractContextManager[object]:
        """A context in which every rank has all weights of these parameters, and may write the same ones."""
        gathered: AbstractContextManager[object] = self._deepspeed.zero.GatheredParameters(
            parameters, modifier_rank=0 if written else None
        )
        return gathered

    def _kept(self, whole: Tensor) -> Tensor:
        """A tensor of a state: in rank 0's main memory, and nothing of it on other ranks."""
        return whole.cpu() if self._world.leads else whole.new_empty(0)


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
