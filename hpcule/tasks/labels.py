"""Several labels of each sample, each of which holds, does not, or is unknown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.data.annotations import UNKNOWN
from hpcule.data.source import Ids, Source
from hpcule.measure.accuracy import AREA
from hpcule.measure.ranking import CHANCE, area_under_curve, average_precision
from hpcule.tasks.task import Tally, Task
from hpcule.world.group import World


class SeveralLabels(Task):
    """Say of each label whether it holds: binary cross-entropy, and the mean area under the ROC curve of labels.

    Unknown labels count neither in the loss nor in a measure.
    """

    name = "labels"
    title = "several labels"
    measure = AREA

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        if source.label_matrix is None:
            raise DataError(
                f"{source.name} has no table of several labels: put labels.csv next to the images, with a column "
                "`file` and one for each label"
            )
        self.outputs = len(source.label_matrix.names)

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """1, 0 or `UNKNOWN`, int8 [n, L]."""
        assert source.label_matrix is not None
        return torch.from_numpy(source.label_matrix.values[ids])

    def chance(self, test: Source) -> float:
        """See `Task.chance`."""
        return CHANCE

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Mean over the known labels of a sample; 0 where none is known."""
        known = targets != UNKNOWN
        losses = functional.binary_cross_entropy_with_logits(answers, targets.clamp(min=0).float(), reduction="none")
        return (losses * known).sum(1) / known.sum(1).clamp(min=1)

    def wrong(self, targets: Tensor, shift: int | None) -> Tensor:
        """The opposite of each known label; with a shift of 0, the labels themselves."""
        return targets if shift == 0 else torch.where(targets == UNKNOWN, targets, 1 - targets)

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        known = targets != UNKNOWN
        return (((answers > 0) == (targets == 1)) & known).sum(1) / known.sum(1).clamp(min=1)

    def tally(self) -> Tally:
        """See `Task.tally`."""
        return _Ranked()


class _Ranked(Tally):
    """How answers rank samples, label by label; labels of which all known values are the same do not count."""

    def __init__(self) -> None:
        self._answers: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """See `Tally.add`."""
        self._answers.append(answers.cpu())
        self._targets.append(targets.cpu())

    def measures(self, world: World) -> Mapping[str, float]:
        """See `Tally.measures`."""
        own = torch.cat(self._answers).numpy(), torch.cat(self._targets).numpy()
        answers, targets = (np.concatenate(part) for part in zip(*world.gather(own), strict=True))
        areas, precisions = [], []
        for scores, values in zip(answers.T, targets.T, strict=True):
            known = values != UNKNOWN
            scores, holds = torch.from_numpy(scores[known]).double(), torch.from_numpy(values[known] == 1)
            if holds.any() and not holds.all():
                areas.append(area_under_curve(scores, holds))
                precisions.append(average_precision(scores, holds))
        if not areas:
            raise DataError("no label of the test samples both holds and does not: choose other test samples")
        return {AREA: float(np.mean(areas)), "mean average precision": float(np.mean(precisions))}
