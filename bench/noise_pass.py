"""Milliseconds an image-pass (forward and backward to the image) of the noise phases of EM's template and of UC.

The first line is the yardstick: the pass as published code writes it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median

import numpy as np
import torch
from torch.nn import functional

from hpcule.config.errors import HpculeError
from hpcule.craft.method import Problem
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.craft.table import configure, find
from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.data.sources.array import ArraySource
from hpcule.nets import build
from hpcule.nets.encoder import load_encoder
from hpcule.world.group import World
from hpcule.world.launcher import Place
from hpcule.world.precision import autocast, has_fast_bf16, place

UC_BATCH = 32
"""UC's default ghost."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=["em", "aue"], help="on EM's template (default: em aue)")
    parser.add_argument("--surrogate", default="resnet18", help="theirs (default: resnet18)")
    parser.add_argument("--batch", type=int, default=64, help="their samples a pass (default: 64)")
    parser.add_argument("--steps", type=int, default=4, help="passes a measurement (default: 4)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 112], help="UC's encoder input (default: 64 112)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    fast = options.precision == "bf16" or (options.precision == "auto" and has_fast_bf16(device))
    kind = f"{device}, {torch.get_num_threads()} thread(s), {'bf16' if fast else 'fp32'}"
    work = f"{options.surrogate}, 32x32, batch {options.batch}"
    yardstick = report(f"as published, {work}, {device}, fp32", plain_passes(options, device), options)
    for name in options.methods:
        taken = report(f"{name}, {work}, {kind}", template_passes(name, options, device, fast), options)
        print(f"{name}: {taken / yardstick:.0%} of the pass as published")
    for size in options.sizes:
        try:
            passes = uc_passes(options, size, device, fast)
        except HpculeError as error:
            print(f"UC, encoder at {size}: skipped ({error})")
            continue
        report(f"UC, efficientnet-lite0 at {size}, batch {UC_BATCH}, {kind}", passes, options)


def report(title: str, passes: Callable[[], int], options: argparse.Namespace) -> float:
    """Run `passes`, which returns how many image-passes it made, once to warm up and then `runs` times; the median."""
    times = []
    for _ in range(options.runs + 1):
        start = time.perf_counter()
        count = passes()
        if options.device != "cpu":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start) / count)
    times = sorted(times[1:])
    print(f"{title}: ms an image-pass min {times[0]:.2f}, median {median(times):.2f}, max {times[-1]:.2f}")
    return median(times)


def plain_passes(options: argparse.Namespace, device: torch.device) -> Callable[[], int]:
    """Signed steps with `backward()` through a network in evaluation mode, whose weights get gradients too."""
    network = build(options.surrogate, channels=3, classes=10, size=(32, 32), seed=0).to(device).eval()
    images = torch.rand(options.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(options.batch, device=device) % 10
    epsilon = 8 / 255
    count: int = options.batch * options.steps

    def passes() -> int:
        delta = torch.zeros_like(images)
        for _ in range(options.steps):
            delta.requires_grad_(True)
            network.zero_grad()
            torch.autograd.backward(functional.cross_entropy(network(images + delta), labels))
            assert delta.grad is not None
            delta = (delta.detach() - epsilon / 10 * delta.grad.sign()).clamp(-epsilon, epsilon)
            delta = (images + delta).clamp(0, 1) - images
        return count

    return passes


def template_passes(name: str, options: argparse.Namespace, device: torch.device, fast: bool) -> Callable[[], int]:
    images = np.random.default_rng(0).integers(0, 256, (options.batch, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(options.batch) % 10
    source = ArraySource(images, labels, name="bench", kind="npz", split="all", where="bench")
    cut = Partition(len(source), 1)
    world = World(Place("single"), 0, 1, device, timedelta(minutes=1))
    problem = Problem(source, cut, Reader(source, cut, 2**30), world, seed=0, exact=False, autocast=fast)
    settings = [f"method.surrogate={options.surrogate}", f"method.noise_steps={options.steps}"]
    config = configure(name, "bench", preset=None, file={}, overrides=settings).method
    method = find(name)(config, problem)
    assert isinstance(method, TwoPhase)
    frozen, noise, ids = method.frozen(), method.noise, cut.ids(0)
    clean, own = noise.load(0, ids)
    count: int = options.batch * options.steps

    def passes() -> int:
        noise.descend(frozen, clean, torch.zeros_like(clean), own, ids, 0)
        return count

    return passes


def uc_passes(options: argparse.Namespace, size: int, device: torch.device, fast: bool) -> Callable[[], int]:
    encoder = load_encoder("efficientnet-lite0", input_size=size)
    place(encoder, device)
    samples = torch.rand(UC_BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    target = torch.full((UC_BATCH, encoder.dimension), 1 / encoder.dimension, device=device)
    count: int = UC_BATCH * options.steps

    def passes() -> int:
        for _ in range(options.steps):
            delta = torch.zeros(3, 32, 32, device=device, requires_grad=True)
            with autocast(device, fast):
                features = encoder((samples + delta).clamp(0, 1).contiguous(memory_format=torch.channels_last))
            loss = functional.kl_div(functional.log_softmax(features.float(), 1), target, reduction="sum")
            torch.autograd.grad(loss, delta)
        return count

    return passes


if __name__ == "__main__":
    main()
