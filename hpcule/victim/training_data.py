"""Training sets, and those of which only a share was protected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.data.source import Ids, Labels, Samples, Source
from hpcule.publish.carry import Publish
from hpcule.publish.collection import PublishNative
from hpcule.tasks.table import task_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.kinds import Basis, Kind, native_publisher, publisher
from hpcule.victim.published import Published
from hpcule.victim.training_schedule import TrainingSchedule
from hpcule.world.keyed import key, order

FEWEST = 2
"""Samples that a training set must have."""


@dataclass(frozen=True)
class TrainingData:
    """What victims train on.

    Attributes:
        source: clean samples, with what the victims' task needs to know of them.
        ids: int64 [n], those that count.
        resident: bytes that a training set may keep in memory.
    """

    source: Source
    ids: Ids
    resident: int

    @classmethod
    def of(cls, source: Source, samples: int | None, resident: int) -> TrainingData:
        """Choose `samples` samples of a source, the same for all victims; None: all.

        Raises:
            UsageError: more than there are, or too few.
        """
        ids = np.arange(len(source), dtype=np.int64)
        if samples is None:
            return cls(source, ids, resident)
        if not 1 < samples <= len(source):
            raise UsageError(f"samples={samples}: {source.name} has {len(source)}")
        return cls(source, np.sort(order(key(0, "victim subset"), ids)[:samples]), resident)

    def training_set(
        self, config: VictimConfig, kind: Kind, store: Basis | None, seed: int
    ) -> tuple[VictimConfig, Published, Published | None]:
        """A victim's settings, its training set, and the clean samples to which its last layer is fitted, if it is.

        Args:
            config: whose countermeasures say which samples are published.
            kind: of the set.
            store: whose perturbation it has; clean samples need none.
            seed: of random noise, and of what is mixed.

        Raises:
            UsageError: hardly any sample is left clean where the recipe needs some.
            DataError: these data cannot have the task.
        """
        if kind == "part":
            return *self.clean_part(config, seed), None
        owned = self.owned(config, seed) if config.countermeasures.refit else None
        native = partial(native_publisher, kind, store, seed, self.source)
        return config, self.published(publisher(kind, store, seed, self.source), config, seed, native), owned

    def published(
        self,
        publish: Publish,
        config: VictimConfig,
        seed: int,
        native: Callable[[Ids | None], PublishNative | None] = lambda protected: None,
    ) -> Published:
        """The training set: all of it through `publish`, or what the attacker does not have clean.

        Images at their own sizes go through what `native` makes of the ids that are protected; None stands for all.

        Raises:
            DataError: these data cannot have the task.
        """
        ids, own, steps = self.ids, partial(native, None), config.countermeasures
        task = task_of(config.task, self.source)
        if steps.share is not None:
            protected = self._protected(steps.share, seed)
            if steps.mix is not None:
                publish, own = mixture(publish, protected), partial(native, protected)
            else:
                ids = protected
        return Published(self.source, publish, ids=ids, resident=self.resident, native=own, task=task)

    def owned(self, config: VictimConfig, seed: int) -> Published:
        """The samples that the attacker has clean.

        Raises:
            UsageError: hardly any.
            DataError: these data cannot have the task.
        """
        steps = config.countermeasures
        assert steps.share is not None
        ids = np.setdiff1d(self.ids, self._protected(steps.share, seed), assume_unique=True)
        if len(ids) < FEWEST:
            raise UsageError(f"{steps}: of {len(self.ids)} samples {len(ids)} stay clean")
        return Published(self.source, ids=ids, resident=self.resident, task=task_of(config.task, self.source))

    def clean_part(self, config: VictimConfig, seed: int) -> tuple[VictimConfig, Published]:
        """The attacker's clean samples alone, for a victim that takes as many steps as on all; its batch is no larger
        than they are."""
        steps, owned = TrainingSchedule.of(config, len(self.ids)).total, self.owned(config, seed)
        shorter = dataclasses.replace(config.without("after"), steps=steps, batch=min(config.batch, len(owned)))
        return shorter, owned

    def _protected(self, share: float, seed: int) -> Ids:
        labels = self.source.labels if self.source.labels is not None else np.zeros(len(self.source), np.int64)
        return stratified(self.ids, labels[self.ids], share, seed)


def stratified(ids: Ids, labels: Labels, share: float, seed: int) -> Ids:
    """The ids of `share` of the samples of every class, drawn from `seed`, in rising order.

    Args:
        ids: int64 [n], all samples of the training set.
        labels: int64 [n], theirs.
        share: above 0 and below 1.
        seed: the same seed with a larger share adds samples to those of the smaller one.
    """
    purpose = key(seed, "mixture")
    parts = []
    for label in np.unique(labels):
        own = order(purpose, ids[labels == label])
        parts.append(own[: round(share * len(own))])
    return np.sort(np.concatenate(parts))


def mixture(publish: Publish, protected: Ids) -> Publish:
    """Publish these ids through `publish`, and all others as they are."""

    def part(ids: Ids, samples: Samples) -> Samples:
        chosen: npt.NDArray[np.bool_] = np.isin(ids, protected)
        result = samples.copy()
        if chosen.any():
            result[chosen] = publish(ids[chosen], samples[chosen])
        return result

    return part
