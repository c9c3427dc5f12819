"""How far a training is: what it needs to go on, and what it has found until now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypedDict, cast

import torch

from hpcule.victim.result import ResultDocument, VictimResult
from hpcule.world.engine import Engine, EngineState
from hpcule.world.group import World


class StateDocument(TypedDict):
    """A training between two steps, as its checkpoint holds it.

    `correct` counts over all ranks; `result` holds the steps that are done and the epochs that have been tested.
    """

    engine: EngineState
    epochs: int
    correct: float
    result: ResultDocument


class TrainingState:
    """A training between two steps.

    Everything else follows from the seed, the epoch, the step and the sample's id.

    Attributes:
        result: what was found until now; it counts the steps.
        epochs: that are done, with their tests.
        correct: number of samples that this rank's steps of the current epoch have recognised, float64.
    """

    def __init__(self, engine: Engine, world: World, seed: int) -> None:
        self._engine, self._world = engine, world
        self.result = VictimResult(seed)
        self.epochs = 0
        self.correct = torch.zeros((), dtype=torch.float64, device=world.device)
        self._start = time.perf_counter()

    def begin(self, saved: Mapping[str, object] | None) -> None:
        """Start the clock, where an earlier process has saved a state from there.

        Args:
            saved: what `document` returned then.
        """
        if saved is not None:
            document = cast("StateDocument", saved)
            self._engine.load(document["engine"])
            self.result = VictimResult.of(document["result"])
            self.epochs = document["epochs"]
            self.correct.fill_(document["correct"] if self._world.leads else 0)
        self._start = time.perf_counter() - self.result.seconds

    def count(self, samples: int) -> None:
        """Note a step on a batch of this many samples, of all ranks."""
        self.result.steps += 1
        self.result.samples_seen += samples
        # The last batch of an epoch may be smaller.
        self.result.batch_taken = max(self.result.batch_taken, samples)

    def document(self) -> StateDocument:
        """What `begin` needs; a collective."""
        self.stop_clock()
        correct = float(self._world.add(self.correct.clone()))
        return {
            "engine": self._engine.state(),
            "epochs": self.epochs,
            "correct": correct,
            "result": self.result.document(),
        }

    def stop_clock(self) -> None:
        """Note the seconds until now in the result."""
        self.result.seconds = time.perf_counter() - self._start
