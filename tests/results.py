"""One realistic results.json, for the table, the claims and the report."""

import math

import numpy as np
import pytest

from hpcule.evaluation.pictures import Pictures
from hpcule.measure.accuracy import paired_difference, summarise

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TITLES = {
    "clean": "clean control",
    "noise": "random-noise control",
    "protected": "protected",
    "part": "clean part alone",
}


def make_victim(seed, last, train, epochs=15):
    """A victim whose curves rise smoothly to `last` and `train`, a little unevenly."""
    rng = np.random.default_rng(1000 * seed + round(1e4 * last))
    curve = []
    for epoch in range(1, epochs + 1):
        rise = 1 - math.exp(-4 * epoch / epochs)
        shake = rng.normal(0, 0.012) if epoch < epochs else 0.0
        test = 0.1 + (last - 0.1) * rise / (1 - math.exp(-4)) + shake
        seen = 0.1 + (train - 0.1) * rise / (1 - math.exp(-4)) + shake / 3
        curve.append({"epoch": epoch, "train": min(1.0, seen), "test": min(1.0, max(0.0, test))})
    best = max(curve, key=lambda point: point["test"])
    return {
        "seed": seed,
        "last": curve[-1]["test"],
        "best": best["test"],
        "best_epoch": best["epoch"],
        "train_last": curve[-1]["train"],
        "steps": 80 * epochs,
        "samples_seen": 80 * epochs * 128,
        "batch_taken": 128,
        "seconds": 31.2 + seed,
        "curve": curve,
        "measures": {"accuracy": curve[-1]["test"], "balanced accuracy": curve[-1]["test"]},
    }


def make_recipe(name, title, accuracies, train):
    """A recipe from lists of last accuracies, one a seed, for each of the three sets."""
    sets = []
    for kind, values in accuracies.items():
        seeds = [make_victim(seed, value, train[kind]) for seed, value in enumerate(values)]
        summary = summarise([victim["last"] for victim in seeds])
        sets.append(
            {
                "set": kind,
                "title": TITLES[kind],
                "seeds": seeds,
                "mean": summary.mean,
                "interval": list(summary.interval) if summary.interval else None,
            }
        )
    settings = {
        "network": "resnet-small",
        "epochs": 15,
        "batch": 128,
        "countermeasures": [name],
        "optimizer": {"lr": 0.1},
    }
    headline = {"measure": "accuracy", "chance": 0.1, "effective": 10000}
    return {"name": name, "title": title, "settings": settings, **headline, "sets": sets}


def make_results(recipes, **changes):
    """The dict around the recipes; `changes` replace whole entries."""
    means = {recipe["name"]: {entry["set"]: entry["mean"] for entry in recipe["sets"]} for recipe in recipes}
    whole = [recipe["name"] for recipe in recipes if "gain" not in recipe]
    worst = max(whole, key=lambda name: means[name]["protected"])
    results = {
        "kind": "evaluate",
        "hpcule": "0.1.0",
        "versions": {"Python": "3.11.2", "torch": "2.13.0"},
        "status": "done",
        "reduced": False,
        "protection": {
            "method": "pil",
            "title": "PIL: perturbation-induced linearization",
            "unit": "sample",
            "groups": 0,
            "epsilon": 8.0,
            "norm": "linf",
            "levels": 255,
            "preset": "paper",
            "n": 50000,
            "settings": {"name": "pil", "epsilon": 8.0, "epochs": 30, "steps": 30, "betas": (0.9, 0.999)},
            "facts": {
                "data": "images",
                "task": "classification",
                "intent": "availability",
                "needs_labels": True,
                "bounded": True,
                "needs_surrogate": True,
                "claimed": "crops, flips, cutout, CutMix, JPEG",
                "measured": ["protected / random noise / clean: plain 11 / 49 / 50 %; 3,000 samples of cifar10"],
                "paper": "arXiv 2601.19967",
                "weaknesses": "nearly the same delta within a class: averaging removes most of it",
            },
        },
        "data": {
            "name": "cifar10",
            "classes": 10,
            "class_names": CLASSES,
            "train": 10000,
            "test": 10000,
            "shape": [3, 32, 32],
            "chance": 0.1,
        },
        "visibility": {
            "psnr_db": 32.41,
            "identical_share": 0.0,
            "ssim_mean": 0.9652,
            "ssim_min": 0.8124,
            "linf_levels": 8,
            "l2_mean": 1.337,
            "changed_share": 0.987,
            "n": 50000,
        },
        "structure": {
            "delta": {"fitted": 1.0, "held_out": 0.998},
            "clean": {"fitted": 0.52, "held_out": 0.351},
            "class_share": 0.644,
            "bayes": {
                "published": {"kernel": 0.61, "neighbour": 0.66, "at_least": 0.43},
                "clean": {"kernel": 0.71, "neighbour": 0.74, "at_least": 0.52},
            },
            "detection": {
                "published": {"linear": 0.994, "two_layers": 0.997},
                "clean": {"linear": 0.349, "two_layers": 0.432},
            },
            "measure": "accuracy",
            "chance": 0.1,
            "n": 8192,
            "values": 3072,
        },
        "recipes": recipes,
        "controls": {name: {kind: found[kind] for kind in ("clean", "noise")} for name, found in means.items()},
        "worst_case": {"recipe": worst, "protected": means[worst]["protected"]},
        "invalid_because": None,
    }
    return results | changes


def with_areas(recipe, **areas):
    """The recipe with an area under the curve for each set, the same for all seeds."""
    for entry in recipe["sets"]:
        for victim in entry["seeds"]:
            victim["measures"]["mean AUC"] = areas[entry["set"]]
    return recipe


def plain(clean=(0.715, 0.722, 0.708), noise=(0.702, 0.711, 0.698), protected=(0.17, 0.21, 0.15)):
    return make_recipe(
        "plain",
        "no augmentation",
        {"clean": clean, "noise": noise, "protected": protected},
        {"clean": 0.99, "noise": 0.985, "protected": 1.0},
    )


def cropped(clean=(0.74, 0.75, 0.745), noise=(0.735, 0.73, 0.74), protected=(0.34, 0.37, 0.33)):
    return make_recipe(
        "crop-flip",
        "crop and flip",
        {"clean": clean, "noise": noise, "protected": protected},
        {"clean": 0.84, "noise": 0.82, "protected": 0.97},
    )


def mixed(protected=(0.62, 0.63, 0.61), part=(0.58, 0.6, 0.59)):
    sets = {"clean": (0.715, 0.722, 0.708), "noise": (0.7, 0.71, 0.69), "protected": protected, "part": part}
    recipe = make_recipe("mix-0.5", "50% protected, the rest clean", sets, dict.fromkeys(sets, 0.99))
    gain = paired_difference(protected, part)
    interval = list(gain.interval) if gain.interval else None
    return recipe | {"gain": {"share": 0.5, "mean": gain.mean, "interval": interval}}


@pytest.fixture
def results():
    """Two recipes, three seeds, a protection that holds in part."""
    return make_results([plain(), cropped()])


@pytest.fixture
def pictures():
    """Eight small pictures with a perturbation of 8 levels."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (8, 3, 32, 32))
    protected = (clean + rng.choice([-8, 8], clean.shape)).clip(0, 255)
    return Pictures(
        clean.astype(np.uint8), (protected - clean).astype(np.int8), protected.astype(np.uint8), CLASSES[:8]
    )


@pytest.fixture
def make():
    """The builders, for tests that need other numbers."""

    class Make:
        results = staticmethod(make_results)
        plain = staticmethod(plain)
        cropped = staticmethod(cropped)
        mixed = staticmethod(mixed)
        with_areas = staticmethod(with_areas)

    return Make
