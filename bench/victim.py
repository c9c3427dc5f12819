"""Training images a second of the victims, on random images of the shape of CIFAR-10."""

from __future__ import annotations

import argparse
from datetime import timedelta
from statistics import median

import numpy as np
import torch

from hpcule.data.sources.array import ArraySource
from hpcule.victim.config import VictimConfig
from hpcule.victim.published import Published
from hpcule.victim.training import train_victim
from hpcule.world.group import World
from hpcule.world.launcher import Place

TEST_IMAGES = 10
"""As few as possible: every epoch ends with a test, which is not what is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=["resnet-small", "resnet-tiny", "convnet"])
    parser.add_argument("--samples", type=int, default=1024, help="images an epoch (default: 1024)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3, help="epochs measured, after one to warm up (default: 3)")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    world = World(Place("single"), 0, 1, torch.device(options.device), timedelta(minutes=1))
    train, test = random_images(options.samples), random_images(TEST_IMAGES)
    for network in options.networks:
        config = VictimConfig(network=network, epochs=1, batch=options.batch, precision=options.precision)
        seconds = [train_victim(config, train, test, world, seed).result.seconds for seed in range(options.runs + 1)]
        rates = sorted(options.samples / one for one in seconds[1:])
        print(
            f"victim {network}, 32x32, batch {options.batch}, {world.device}, {torch.get_num_threads()} thread(s), "
            f"precision {options.precision}: "
            f"training images/s min {rates[0]:.0f}, median {median(rates):.0f}, max {rates[-1]:.0f}"
        )


def random_images(count: int) -> Published:
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    source = ArraySource(images, np.arange(count) % 10, name="bench", kind="npz", split="all", where="bench")
    return Published(source, resident=2**30)


if __name__ == "__main__":
    main()
