"""What the files of a study's folder hold, as JSON: results of its items, and notes on what runs or has failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from hpcule.config.tree import Tree
from hpcule.craft.run import CraftDocument
from hpcule.victim.kinds import Kind
from hpcule.victim.result import EpochDocument


class NoiseScaleDocument(TypedDict):
    """The gradient noise scale of some steps in samples, with its interval; `reason` says why it is None.

    A bound that is infinite is None, as both are where there is no interval.
    """

    first_step: int
    last_step: int
    noise_scale: float | None
    low: float | None
    high: float | None
    reason: str


class CraftingDocument(TypedDict):
    """What a craft's journal reports; see `hpcule.study.crafting`. Without such a figure in it, None.

    `moved_first` and `moved_last` are shares of samples nearest to the centre of their target cluster, before training
    and at its end; results of earlier versions do not have them.
    """

    loss_first: float | None
    loss_last: float | None
    loss_steps: int | None
    steps_to_target: int | None
    samples_to_target: int | None
    saturated: float | None
    moved_first: NotRequired[float | None]
    moved_last: NotRequired[float | None]
    noise_scales: list[NoiseScaleDocument]


class CraftItemDocument(CraftDocument, CraftingDocument):
    """done/KEY.json of a craft: its summary, its journal, and the settings of its method.

    `deltas` is the SHA-256 of its perturbations, which results of earlier versions do not have.
    """

    kind: Literal["craft"]
    title: str
    settings: Tree
    deltas: NotRequired[str]


class VictimItemDocument(TypedDict):
    """done/KEY.json of a victim: its training, on the samples of `craft`, by `workers` ranks jointly.

    `last` and `best` are values in [0, 1] of `measure`, that of its task. Its chance level is `chance`. After the last
    epoch, `measures` has all of them: of one label balanced accuracy too, whose chance level is `balanced_chance`.
    Results of earlier versions have no `workers`, which was 1, no `measure`, which was accuracy, and no other measures.
    """

    kind: Literal["victim"]
    role: Kind
    title: str
    craft: str | None
    workers: NotRequired[int]
    measure: NotRequired[str]
    chance: float
    balanced_chance: NotRequired[float]
    last: float
    best: float
    measures: NotRequired[Mapping[str, float]]
    noise_scales: list[NoiseScaleDocument]
    seed: int
    batch_asked: int | None
    batch_taken: int
    steps: int
    samples_seen: int
    seconds: float
    curve: list[EpochDocument]
    steps_to_target: int | None
    alignment: float | None
    uniformity: float | None


ItemDocument = CraftItemDocument | VictimItemDocument


class ProgressDocument(TypedDict):
    """running/KEY.json: how far an item is; `started` and `time` are seconds of the clock, `job` is Slurm's, if any."""

    stage: str
    done: int
    total: int
    started: float
    time: float
    host: str
    job: str


class FailureDocument(TypedDict):
    """failed/KEY.json: what went wrong with an item and where; `job` is that of Slurm, or None."""

    error: str
    host: str
    job: str | None


class SamplesDocument(TypedDict):
    """The samples of a data set; see `StudySamples`."""

    samples: int
    training: str
    test: str


class FactsDocument(TypedDict):
    """facts.json: the samples that a study's results are of, by the name of their data set."""

    data: dict[str, SamplesDocument]
