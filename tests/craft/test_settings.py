"""A method has the settings that it reads, and each of them can be set to more than one value."""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pytest
from toys import AnnotatedToys, ToySource, craft, make_problem

from hpcule.config.errors import UsageError
from hpcule.config.ranges import range_of
from hpcule.craft.methods.em import EMConfig, ErrorMinimizing
from hpcule.craft.table import METHODS, configure

NETWORK = ["surrogate=convnet", "batch=12", "ghost=6"]
ROUNDS = ["model_steps=2", "model_epochs=null", "max_rounds=2", "noise_steps=1", "stop_error=-1"]
STAIRS = ["model_epochs=1", "schedule=stairs", "max_rounds=1"]
ONCE = ["model_epochs=null", "model_steps=2", "noise_steps=1", "schedule=stairs"]
AROUND = ["weight_noise=0.05", "model_draws=1", "noise_draws=1", "noisy_below=1"]
MASKS = ["task=segmentation", "augment=none"]
ADVERSARY = ["adversary_steps=1"]
ENCODER = ["encoder_size=32", "batch=12", "ghost=6", "steps=1"]
CLUSTERS = ["clusters=2", *ENCODER]
PATCH = ["patch=20", "region=60", "taps=3"]
RUNS: dict[str, list[list[str]]] = {
    "em": [[*NETWORK, *ROUNDS], [*NETWORK, *STAIRS, "unit=class"], [*NETWORK, "task=segmentation", "max_rounds=1"]],
    "pil": [["epochs=1", "steps=1", "batch=12", "ghost=6"]],
    "uc": [CLUSTERS, [*CLUSTERS, "direct=true", "steps=null", "epochs=1"]],
    "texture": [["clusters=2", "encoder=efficientnet-lite0", "encoder_size=32"]],
    "texture-learned": [ENCODER],
    "bait": [["encoder_size=32", "batch=12", "ghost=6", "rounds=1"]],
    "aue": [[*NETWORK, *ROUNDS], [*NETWORK, *STAIRS, "unit=class"], [*NETWORK, *MASKS, "max_rounds=1"]],
    "aap": [[*NETWORK, *ONCE], [*NETWORK, *ONCE, *MASKS]],
    "tap": [[*NETWORK, *ONCE], [*NETWORK, *ONCE, *MASKS]],
    "hypo": [[*NETWORK, *ONCE], [*NETWORK, *ONCE, *MASKS]],
    "pue": [[*NETWORK, *ROUNDS, *AROUND, "unit=sample"], [*NETWORK, *STAIRS, *AROUND]],
    "mi-ue": [[*NETWORK, *ROUNDS, "noise_batch=12", "spread=0.1"], [*NETWORK, *STAIRS]],
    "rem": [[*NETWORK, *ONCE, *ADVERSARY, "draws=1"]],
    "sem": [[*NETWORK, *ONCE, *ADVERSARY, "draws=1"]],
    "sep": [[*NETWORK, *ONCE, "checkpoints=1"]],
    "entf": [[*NETWORK, *ONCE, *ADVERSARY]],
    "beo": [[*NETWORK, "outer_steps=1", "epochs=1"]],
    "cp": [[*NETWORK, *ROUNDS], [*NETWORK, *STAIRS, "unit=class", "noise_batches=1"]],
    "gue": [[*NETWORK, "epochs=1", "inner_steps=1"]],
    "ar": [["crop=2"]],
    "classwise": [["size=2"]],
    "lsp": [["cell=2"]],
    "em-ops": [[*NETWORK, *ROUNDS], [*NETWORK, *STAIRS]],
    "poscuda": [[*PATCH, "fade=2"]],
}
"""Runs of toys by which all settings are read, for methods whose defaults do not do that."""


class Recordings(ToySource):
    rate = 8000

    def __init__(self):
        super().__init__(24, (1, 1, 60), dtype=np.uint16)

    def lengths(self, ids):
        return np.full(len(ids), 30)


def configured(name, overrides):
    return configure(
        name,
        "toys",
        preset="smoke" if name not in RUNS else None,
        file={},
        overrides=[f"method.{text}" for text in overrides],
    ).method


def read_by(method, config, source):
    """The names that a run reads of its settings."""
    read = set()

    def get(self, name):
        read.add(name)
        return object.__getattribute__(self, name)

    kind = type(config)
    watched = object.__new__(type(kind.__name__, (kind,), {"__getattribute__": get}))
    for name, value in vars(config).items():
        object.__setattr__(watched, name, value)
    craft(method(watched, make_problem(source, shards=2, crafted_for=method.tasks(watched))))
    return read


def names_of(kind):
    return {field.name for field in fields(kind)} - {"name"}


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_read(name):
    method = METHODS[name]
    source = Recordings() if method.facts.data == "audio" else AnnotatedToys(24, 8)
    read = set().union(*(read_by(method, configured(name, run), source) for run in RUNS.get(name, [[]])))
    assert names_of(method.config_class) - read == set()


def test_a_setting_that_is_not_read_is_found():
    @dataclass(frozen=True, kw_only=True)
    class IdleConfig(EMConfig):
        idle: int = 1

    config = configured("em", RUNS["em"][1])
    read = read_by(ErrorMinimizing, IdleConfig(**vars(config)), ToySource(24))
    # Of these, model_epochs replaces the second, and the third is for masks.
    assert names_of(IdleConfig) - read == {"idle", "model_steps", "pixel_surrogate"}


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_second_value(name):
    kind = METHODS[name].config_class
    hints = typing.get_type_hints(kind)
    choices = {field.name: hints[field.name] for field in fields(kind)}
    lists = {name: typing.get_args(hint) for name, hint in choices.items() if typing.get_origin(hint) is Literal}
    assert {name for name, values in lists.items() if len(values) < 2} == set()


@pytest.mark.parametrize("name", METHODS)
def test_every_number_has_a_range(name):
    """But for an error that may be negative to say never, and an offset whose only rule depends on another setting."""
    kind = METHODS[name].config_class
    hints = typing.get_type_hints(kind)
    parts = {field.name: {hints[field.name], *typing.get_args(hints[field.name])} for field in fields(kind)}
    without = {field.name for field in fields(kind) if {int, float} & parts[field.name] and range_of(field) is None}
    assert without <= {"stop_error", "target_offset"}


ONE_ROUND = ("unit", "subset", "max_rounds", "stop_error")
GONE = {
    **dict.fromkeys(("aap", "tap", "hypo", "sep", "entf", "rem", "sem"), ONE_ROUND),
    "em-ops": ("unit", "subset"),
    "cp": ("augment",),
}


@pytest.mark.parametrize(("name", "settings"), GONE.items())
def test_settings_that_had_no_effect_are_gone(name, settings):
    for setting in settings:
        assert setting not in names_of(METHODS[name].config_class)
        with pytest.raises(UsageError, match=rf"^method\.{setting}: earlier versions had this setting"):
            configured(name, [f"{setting}=1"])
