"""The methods as people choose among them: the survey's facts, what follows from the code, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from hpcule.config.described import described
from hpcule.config.run import MethodConfig
from hpcule.config.tree import build_config, merged
from hpcule.craft.measured import MeasuredRow, measured_sentences, pretrained_rows, with_evidence
from hpcule.craft.method import Method, Unit
from hpcule.craft.records import RecordDocument, records_of
from hpcule.craft.table import defaults, usable

SHAPE, LEVELS = (3, 224, 224), 255
"""Images that budgets are looked up for; whether they bound each value does not depend on it."""

NeedsLabels = Literal["needed", "not needed", "by class", "or clusters"]
"""Whether a method needs labels: always, never, only with one perturbation a class, or unless it is given clusters."""
OwnSizes = Literal["resized", "drawn", "no"]
"""What becomes of a perturbation at an image's own size: it is resized, or drawn again; or images are published at the
size at which they are crafted."""


class MethodDocument(TypedDict):
    """A method in the table of methods: its name, its `Facts`, what follows from its code, and what was measured."""

    name: str
    title: str
    data: str
    task: str
    intent: str
    needs_labels: bool
    bounded: bool
    needs_surrogate: bool
    claimed: str
    paper: str
    cost: str
    weaknesses: str
    needs_checkpoint: bool
    units: Sequence[Unit]
    """What one perturbation is for: by default, and by other values of the setting `unit`."""
    labels: NeedsLabels
    own_sizes: OwnSizes
    medical: bool
    """Whether it can be published as DICOM and NIfTI, in stored values of up to 16 bits."""
    measured: Sequence[str]
    """Figures of victims and of stripping, in sentences."""
    pretrained: Sequence[MeasuredRow]
    """Attackers with pre-trained weights; empty: not measured."""
    records: Sequence[RecordDocument]
    """Published figures next to ours."""


def describe() -> tuple[list[MethodDocument], list[str]]:
    """One row a method that can be imported, and one line for each that cannot."""
    methods, broken = usable()
    return [_described(name, method) for name, method in methods.items()], broken


def _described(name: str, method: type[Method[Any]]) -> MethodDocument:
    facts = method.facts
    return {
        "name": name,
        "title": facts.title,
        "data": facts.data,
        "task": facts.task,
        "intent": facts.intent,
        "needs_labels": facts.needs_labels,
        "bounded": facts.bounded,
        "needs_surrogate": facts.needs_surrogate,
        "claimed": with_evidence(name, facts.claimed),
        "paper": facts.paper,
        "cost": facts.cost,
        "weaknesses": facts.weaknesses,
        "needs_checkpoint": facts.needs_checkpoint,
        "units": [method.unit(config) for config in _by_unit(method)],
        "labels": _labels(method),
        "own_sizes": _own_sizes(method),
        "medical": _own_sizes(method) != "no",
        "measured": measured_sentences(name),
        "pretrained": pretrained_rows(name),
        "records": records_of(name),
    }


def _own_sizes(method: type[Method[Any]]) -> OwnSizes:
    if method.facts.data != "images" or not method.budget(_configured(method), SHAPE, LEVELS).by_value:
        return "no"
    own = method.__mro__[: method.__mro__.index(Method)]
    return "drawn" if any("texture" in vars(base) for base in own) else "resized"


def _labels(method: type[Method[Any]]) -> NeedsLabels:
    needs = {method.needs_labels(config) for config in _by_unit(method)}
    if len(needs) > 1:
        return "by class"
    if needs == {False}:
        return "not needed"
    clustered = hasattr(_configured(method), "clusters") and _configured(method, {"clusters": 2})
    return "or clusters" if clustered and not method.needs_labels(clustered) else "needed"


def _by_unit(method: type[Method[Any]]) -> list[MethodConfig]:
    """The default settings, and those with each other value of the setting `unit`, where the method has it."""
    default = _configured(method)
    units = next((part.valid.split(", ") for part in described(method.config_class) if part.name == "unit"), [])
    others = [unit for unit in units if unit != method.unit(default)]
    return [default, *(_configured(method, {"unit": unit}) for unit in others)]


def _configured(method: type[Method[Any]], settings: Mapping[str, object] | None = None) -> MethodConfig:
    """The settings of the paper, with others on top."""
    below = defaults(method, "paper", settings or {})
    return build_config(method.config_class, merged(below, settings or {}), "method.").resolved()
