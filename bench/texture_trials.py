"""What attackers learn from textures that hpcule does not have as settings: any wavelengths, and a pattern as a part.

    python bench/texture_trials.py DATA TRIAL ... --recipes RECIPE ... --subset N

A TRIAL names the wavelengths of each class in pixels, as 12/19/30 for three classes or 12+48/24+96 for two, and behind
@ the share of the energy that goes into a pattern of long waves, which samples of a class have in common. The training
samples of DATA are divided: every fifth of a class is tested on, so that nothing is chosen by the test samples. Images
are read at 224 x 224 and change by up to 16 levels. The table has balanced accuracies in percent, those of clean images
first. A linear probe has no randomness of its own; other networks take seed 0.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpcule.config.run import WorldConfig
from hpcule.data.opening import Opening
from hpcule.data.source import Ids, Samples, Source
from hpcule.publish.carry import Publish
from hpcule.victim.config import VictimConfig
from hpcule.victim.kinds import clean as unchanged
from hpcule.victim.published import Published
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import train_victim
from hpcule.world.allocation import keep_freed_memory
from hpcule.world.coloured import to_images, white_spectra
from hpcule.world.group import World, connected
from hpcule.world.keyed import key
from hpcule.world.launcher import detect
from hpcule.world.spectra import Cells

SIZE, LEVELS, SATURATION = 224, 16, 2.5
PATTERN = (56.0, 96.0, 160.0)
"""Wavelengths of the pattern."""
HELD_OUT = 5
RESIDENT = 1 << 31
Array = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", nargs="?")
    parser.add_argument("trials", metavar="TRIAL", nargs="*")
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE", default=["linear-probe@efficientnet-lite0"])
    parser.add_argument("--subset", type=int, metavar="N", help="number of samples, spread evenly; all by default")
    options = parser.parse_args()
    if options.data is None:  # as `make bench` calls every program
        parser.print_help()
        return
    keep_freed_memory()
    source = Opening(image_size=SIZE, subset=options.subset).source(options.data)
    train, test = divided(source)
    clean = Published(source, ids=test, resident=RESIDENT)
    print("| |", " | ".join(options.recipes), "|")
    with connected(detect(), WorldConfig()) as world:
        for trial in ["clean", *options.trials]:
            publish = unchanged if trial == "clean" else publisher(trial, source)
            published = Published(source, publish, ids=train, resident=RESIDENT)
            reached = [accuracy(recipe, published, clean, world) for recipe in options.recipes]
            print(f"| {trial} |", " | ".join(f"{100 * one:.0f}" for one in reached), "|", flush=True)


def divided(source: Source) -> tuple[Ids, Ids]:
    """Samples to train on, and every fifth of each class to test on."""
    labels = np.asarray(source.labels)
    held = np.concatenate([np.flatnonzero(labels == label)[::HELD_OUT] for label in np.unique(labels)])
    return np.setdiff1d(np.arange(len(source)), held), np.sort(held)


def publisher(trial: str, source: Source) -> Publish:
    """Adds the texture of its class to each sample."""
    waves, _, share = trial.partition("@")
    classes = [[float(wave) for wave in own.split("+")] for own in waves.split("/")]
    if len(classes) != source.class_count:
        raise SystemExit(f"{trial} has wavelengths for {len(classes)} classes, and the data have {source.class_count}")
    amplitudes = [amplitude(own) for own in classes]
    patterns = [noise(amplitude(PATTERN), "pattern", np.array([label]))[0] for label in range(len(classes))]
    labels, part = np.asarray(source.labels), float(share or 0)

    def publish(ids: Ids, samples: Samples) -> Samples:
        changed = samples.astype(np.int16)
        for row, number in enumerate(ids.tolist()):
            label = int(labels[number])
            own = noise(amplitudes[label], "texture", np.array([number]))[0]
            mixed = math.sqrt(1 - part) * own + math.sqrt(part) * patterns[label]
            changed[row] += np.rint(LEVELS * np.tanh(SATURATION * mixed)).astype(np.int16)
        return changed.clip(0, source.levels).astype(samples.dtype)

    return publish


def amplitude(waves: Sequence[float]) -> Array:
    """Of noise with equal energies around some wavelengths [SIZE, SIZE // 2 + 1]."""
    return Cells(tuple(waves), 1).amplitude(np.full(len(waves), 1 / len(waves), np.float32), SIZE, SIZE)


def noise(amplitudes: Array, purpose: str, ids: Ids) -> Array:
    """Of unit variance [n, SIZE, SIZE]."""
    found = to_images(white_spectra(key(0, "trial", purpose), ids, (1, SIZE, SIZE)) * amplitudes, SIZE)[:, 0]
    unit: Array = found / found.std((1, 2), keepdims=True)
    return unit


def accuracy(name: str, train: Published, test: Published, world: World) -> float:
    """Balanced accuracy of a victim."""
    settings = VictimConfig(network="resnet-tiny", epochs=15, batch=32, optimizer="adam", learning_rate=0.002)
    victim = train_victim(Recipe.parse(name).applied(settings), train, test, world, 0, lambda done, total: None)
    return float(victim.result.last.measures["balanced accuracy"])


if __name__ == "__main__":
    main()
