"""Tasks as perturbations are crafted for them: several at once, and those that follow from an image itself.

A surrogate has one network a task. Its answers, and what is known of samples, are rows in which those of the tasks
stand next to each other, so that a method needs no more than a loss of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hpcule.config.run import CraftTasks
from hpcule.data.source import Ids, Source
from hpcule.tasks.table import task_of
from hpcule.tasks.task import Tally, Task

SELF_POSED = ("rotation", "colour", "edges")
"""Tasks that ask about the image as it is shown, with its perturbation."""


class Crafting(Task):
    """A task that networks learn while a perturbation is crafted, and that no victim is tested on."""

    def __init__(self) -> None:
        """Do nothing: the parts take what they need of samples."""

    def chance(self, test: Source) -> float:
        """See `Task.chance`; a part is tested by itself."""
        raise NotImplementedError

    def tally(self) -> Tally:
        """See `Task.tally`; a part is tested by itself."""
        raise NotImplementedError


class SelfPosed(Crafting):
    """A task whose question follows from each image: the answers [n, 2] are its loss, and how much was right."""

    def __init__(self, task: Task) -> None:
        """Take the task that a victim would learn."""
        self.posed = task
        self.outputs = 2

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """See `Task.targets`."""
        return self.posed.targets(source, ids)

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.losses`."""
        return answers[:, 0]

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        return answers[:, 1].clamp(0, 1)


class Marking(nn.Module):
    """A network with the question that a task makes from an image, and its loss: images [n, C, H, W] to [n, 2].

    Args:
        network: answers the questions.
        task: asks them.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self._task = task

    def forward(self, images: Tensor) -> Tensor:
        """Loss and how much was right, means over all questions about an image."""
        none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        shown, asked = self._task.exam(images, none)
        answers = self.network(shown).float()
        marks = torch.stack([self._task.losses(answers, asked), self._task.right(answers, asked)], 1)
        return marks.view(-1, len(images), 2).mean(0)


class Together(Crafting):
    """Several tasks: the sum of their losses, and the mean of what is right."""

    def __init__(self, tasks: Sequence[Task], shape: tuple[int, int, int]) -> None:
        """Take tasks on samples of a shape (C, H, W)."""
        self.tasks = tasks
        self._answers = [(task.outputs, *(shape[1:] if task.answers == "pixels" else ())) for task in tasks]
        self._known = list[tuple[int, ...]]()
        self.outputs = sum(torch.Size(answers).numel() for answers in self._answers)

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """What the tasks know of samples, in one row each, int64."""
        each = [task.targets(source, ids) for task in self.tasks]
        self._known = [tuple(known.shape[1:]) for known in each]
        return torch.cat([known.reshape(len(ids), -1).long() for known in each], 1)

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.losses`."""
        return torch.stack([task.losses(own, known) for task, own, known in self._parts(answers, targets)]).sum(0)

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        return torch.stack([task.right(own, known) for task, own, known in self._parts(answers, targets)]).mean(0)

    def wrong(self, targets: Tensor, shift: int | None) -> Tensor:
        """See `Task.wrong`."""
        each = zip(self.tasks, _cut(targets, self._known), strict=True)
        return torch.cat([task.wrong(known, shift).reshape(len(targets), -1) for task, known in each], 1)

    def _parts(self, answers: Tensor, targets: Tensor) -> list[tuple[Task, Tensor, Tensor]]:
        return list(zip(self.tasks, _cut(answers, self._answers), _cut(targets, self._known), strict=True))


class SideBySide(nn.Module):
    """Networks whose answers stand next to each other in one row a sample."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [n, C, H, W] to answers [n, D]."""
        return torch.cat([network(images).flatten(1) for network in self.networks], 1)


def crafting_task(tasks: CraftTasks, source: Source) -> Task:
    """What surrogates learn.

    Raises:
        DataError: these data cannot have one of the tasks.
    """
    each = [_posed(task_of(name, source)) for name in tasks.names]
    return each[0] if len(each) == 1 else Together(each, source.shape)


def network_for(task: Task, build: Callable[[Task, int], nn.Module]) -> nn.Module:
    """The network that learns a task.

    Args:
        task: of `crafting_task`.
        build: builds that of a task that victims have, given its number among several.
    """
    if isinstance(task, Together):
        return SideBySide([_one(part, build, number) for number, part in enumerate(task.tasks)])
    return _one(task, build, 0)


def _one(task: Task, build: Callable[[Task, int], nn.Module], number: int) -> nn.Module:
    if isinstance(task, SelfPosed):
        return Marking(build(task.posed, number), task.posed)
    return build(task, number)


def _posed(task: Task) -> Task:
    return SelfPosed(task) if task.name in SELF_POSED else task


def _cut(rows: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Parts of rows [n, D], each [n, *shape]."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.reshape(len(rows), *shape) for part, shape in zip(torch.split(rows, sizes, 1), shapes, strict=True)]
