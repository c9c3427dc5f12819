"""Small runs of the methods of the two-phase template."""

import torch
from torch.nn import functional
from toys import make_problem

from hpcule.craft.parts.surrogate import logits_of
from hpcule.craft.table import configure, find

CLASSES = 3
SMALL = ["method.surrogate=resnet-tiny", "method.batch=24", "method.ghost=6"]
ADVERSARY = ["method.adversary_steps=2", "method.adversary_step_size=2"]
WALKING = ["method.aim=feature", "method.variance_reduction=true"]
AROUND = ["method.weight_noise=0.1", "method.model_draws=2", "method.noise_draws=2", "method.noisy_below=1"]
RUNS: dict[str, list[str]] = {
    "aue": ["method.max_rounds=2"],
    "aue class-wise": ["method.unit=class", "method.max_rounds=2"],
    "aap": ["method.model_epochs=2", "method.noise_steps=3", "method.warmup_epochs=1"],
    "tap": ["method.model_epochs=2", "method.noise_steps=3", "method.restarts=2"],
    "hypo": ["method.model_epochs=2", "method.noise_steps=3"],
    "em": ["method.max_rounds=2", "method.model_steps=3", "method.noise_steps=4", "method.stop_error=-1"],
    "em-ops": ["method.max_rounds=2", "method.model_steps=3", "method.noise_steps=4", "method.stop_error=-1"],
    "pue": [*AROUND, "method.unit=sample", "method.max_rounds=2", "method.model_steps=2", "method.stop_error=-1"],
    "pue class-wise": [
        *AROUND,
        "method.max_rounds=2",
        "method.model_steps=2",
        "method.subset=1",
        "method.stop_error=-1",
    ],
    "mi-ue": ["method.max_rounds=2", "method.noise_steps=3", "method.noise_batch=25", "method.spread=0.1"],
    "rem": [*ADVERSARY, "method.model_steps=3", "method.noise_steps=3", "method.draws=2"],
    "sem": [*ADVERSARY, "method.model_steps=3", "method.noise_steps=3", "method.draws=2"],
    "sep": ["method.model_epochs=2", "method.checkpoints=3", "method.noise_steps=3"],
    "sep by features": ["method.model_epochs=2", "method.checkpoints=2", "method.noise_steps=3", *WALKING],
    "entf": [*ADVERSARY, "method.model_epochs=1", "method.noise_steps=3"],
    "entf pull": [*ADVERSARY, "method.model_epochs=1", "method.noise_steps=3", "method.aim=pull"],
}


def make_method(run, source, world=None, *extra, shards=4, **settings):
    name = run.split()[0]
    config = configure(name, "toys", preset=None, file={}, overrides=[*SMALL, *RUNS[run], *extra]).method
    return find(name)(config, make_problem(source, world, shards=shards, **settings))


def unit(source, ids):
    return torch.from_numpy(source.samples[ids]).float() / 255, torch.from_numpy(source.labels[ids])


def loss_of(frozen, samples, labels):
    with torch.no_grad():
        return functional.cross_entropy(logits_of(frozen, samples), labels, reduction="none")
