"""Peak resident memory of each rank that trains a large network, by engine, and its losses.

Every row is trained by new processes on one machine's processors, from the same weights on the same images of 32 x 32
pixels, with SGD and momentum. The peaks are the system's (VmHWM) of the rank that needs most: while it builds the
network and takes the steps, and while rank 0 puts a checkpoint together and packs it. With --limit, each rank may have
that much private memory (RLIMIT_DATA), and a row whose ranks ask for more does not fit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from hpcule.config.run import WorldConfig
from hpcule.nets import build
from hpcule.store.state import pack_state
from hpcule.victim.config import VictimConfig
from hpcule.victim.optimizers import build_optimizer
from hpcule.world.deepspeed_engine import DeepSpeedConfig, DeepSpeedEngine
from hpcule.world.engine import DdpEngine, Engine
from hpcule.world.group import World, connected
from hpcule.world.launcher import Place, free_port

ROWS: dict[str, dict[str, Any]] = {
    "DDP": {},
    "ZeRO-1": {"zero": 1},
    "ZeRO-2": {"zero": 2},
    "ZeRO-3": {"zero": 3},
    "ZeRO-3, optimizer offloaded": {"zero": 3, "offload": "optimizer"},
    "ZeRO-3, parameters offloaded": {"zero": 3, "offload": "parameters"},
    "ZeRO-3, bf16 weights": {"zero": 3, "bf16_weights": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="torchvision:resnet152")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="images of a step, over all workers (default: 8)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="measure a checkpoint, too")
    parser.add_argument("--limit", type=int, metavar="MiB", help="private memory of a rank")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["DDP", "ZeRO-2", "ZeRO-3"])
    options = parser.parse_args()
    # glibc would keep what is freed in the middle of its heap: half as much again where weights come and go.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    count = sum(parameter.numel() for parameter in build_network(options.network).parameters())
    print(
        f"{options.network}: {count:,} parameters, {4 * count / 2**20:,.0f} MiB as float32; {options.workers} workers"
    )
    print("| engine | MiB a rank before | while it trains | while it saves | seconds a step | losses |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in options.rows:
        print(f"| {row} | {measured(row, options)} |", flush=True)


def measured(row: str, options: argparse.Namespace) -> str:
    """The other cells of a row."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    pipes, processes = [], []
    for rank in range(options.workers):
        ours, theirs = context.Pipe()
        place = Place("mpi", rank, options.workers, rank, options.workers, "127.0.0.1", port)
        processes.append(context.Process(target=work, args=(theirs, place, row, options)))
        pipes.append(ours)
        processes[-1].start()
        theirs.close()
    answers = []
    for pipe in pipes:
        try:
            answers.append(pipe.recv())
        except EOFError:
            answers.append("a rank was killed")
        if isinstance(answers[-1], str):
            break
    for process in processes:
        if isinstance(answers[-1], str):
            process.kill()
        process.join()
    refused = next((answer for answer in answers if isinstance(answer, str)), None)
    if refused is not None:
        return f"does not fit: {refused} | | | | "
    before, training, saving = (max(answer[name] for answer in answers) for name in ("before", "training", "saving"))
    losses = " ".join(f"{loss:.6f}" for loss in answers[0]["losses"])
    saved = f"{saving:,}" if options.save else "-"
    return f"{before:,} | {training:,} | {saved} | {answers[0]['seconds']:.1f} | {losses}"


def work(pipe: Connection, place: Place, row: str, options: argparse.Namespace) -> None:
    """Train on one rank, and send what was measured, or why it failed."""
    try:
        if options.limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (options.limit * 2**20, options.limit * 2**20))
        with connected(place, WorldConfig(device="cpu", threads=1, timeout_seconds=600)) as world:
            pipe.send(train(world, row, options))
    except Exception as error:
        traceback.print_exc(limit=-1, file=sys.stderr)
        pipe.send(" ".join(str(error).split()).rpartition("Allocator: ")[2])


def train(world: World, row: str, options: argparse.Namespace) -> dict[str, Any]:
    """Peaks in MiB, the seconds of a step but the first, and the losses."""
    before = peak()
    network = build_network(options.network)
    optimizer = build_optimizer(VictimConfig(learning_rate=0.01), network)
    engine = build_engine(world, row, network, optimizer, options)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(options.batch, 3, 32, 32, generator=generator)
    labels = torch.arange(options.batch) % 10
    mine = torch.arange(options.batch).tensor_split(world.size)[world.rank]
    losses, seconds = [], []
    for _ in range(options.steps):
        begin = time.perf_counter()
        with engine.part(last=True):
            loss = functional.cross_entropy(engine.network(images[mine]).float(), labels[mine], reduction="sum")
            engine.backward(loss * world.size / options.batch)
        engine.step()
        seconds.append(time.perf_counter() - begin)
        losses.append(float(world.add(loss.detach())) / options.batch)
    training = peak()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    if options.save:
        state = engine.state()
        if world.leads:
            pack_state(state)
    return {"before": before, "training": training, "saving": peak(), "seconds": min(seconds), "losses": losses}


def build_network(name: str) -> torch.nn.Module:
    return build(name, channels=3, classes=10, size=(32, 32), seed=0)


def build_engine(
    world: World, row: str, network: torch.nn.Module, optimizer: torch.optim.Optimizer, options: argparse.Namespace
) -> Engine:
    if not ROWS[row]:
        return DdpEngine(network, optimizer, world)
    config = DeepSpeedConfig(**ROWS[row], micro_batch=-(-options.batch // world.size), parts=1)
    return DeepSpeedEngine(network, optimizer, world, config)


def peak() -> int:
    """Largest resident memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    main()
