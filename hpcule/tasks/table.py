"""All tasks by name."""

from __future__ import annotations

from collections.abc import Mapping

from hpcule.config.errors import DataError, UsageError
from hpcule.config.tree import unknown
from hpcule.data.source import Source
from hpcule.tasks.label import OneLabel
from hpcule.tasks.labels import SeveralLabels
from hpcule.tasks.pixels import Colour, Edges
from hpcule.tasks.rotation import Rotation
from hpcule.tasks.segmentation import Segmentation
from hpcule.tasks.task import Task, TaskName

TASKS: Mapping[TaskName, type[Task]] = {
    task.name: task for task in (OneLabel, SeveralLabels, Segmentation, Rotation, Colour, Edges)
}


def find_task(name: str) -> type[Task]:
    """The task of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        raise UsageError(unknown("task", name, list(TASKS)))
    return next(task for known, task in TASKS.items() if known == name)


def task_of(name: str, source: Source) -> Task:
    """A task on the samples of a source.

    Raises:
        UsageError: no task has this name.
        DataError: these data cannot have the task.
    """
    return find_task(name)(source)


def require_same_answers(task: str, train: Source, test: Source) -> None:
    """Check that what is learnt from one source can be tested on another.

    Raises:
        DataError: the test samples cannot have the task, or have other labels or other classes of pixels.
    """
    find_task(task)(test)
    pairs = {
        "labels": (train.label_matrix and train.label_matrix.names, test.label_matrix and test.label_matrix.names),
        "segmentation": (train.masks and train.masks.names, test.masks and test.masks.names),
    }
    expected, found = pairs.get(task, (None, None))
    if expected != found:
        shown = ", ".join((found or ())[:8]), ", ".join((expected or ())[:8])
        raise DataError(
            f"{test.name}:{test.split} has {shown[0]}, training {shown[1]}: give both the same, in one order"
        )
