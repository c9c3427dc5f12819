"""The arrays of a study: crafts, victims that each wait for their own craft, and the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from hpcule.jobs.limits import Limits
from hpcule.jobs.site import Stage
from hpcule.jobs.submit import CommandBatch
from hpcule.study.grid import StudyGrid

Keys = tuple[str, ...]
"""Keys of items: the victims of one job, or the crafts that they wait for."""
T = TypeVar("T")


class StudyBatches:
    """Arrays for the missing items of a study, in an order in which each waits for earlier ones only.

    Attributes:
        batches: the arrays.
        left_out: number of items that do not fit under Slurm's limit of jobs.
    """

    def __init__(
        self,
        grid: StudyGrid,
        missing: Collection[str],
        queued: Mapping[str, str],
        *,
        path: str,
        per_job: int,
        limits: Limits,
    ) -> None:
        """Arrange the items.

        Args:
            grid: of the study.
            missing: keys of the items to be submitted.
            queued: names of jobs that wait or run already, by item.
            path: of the study's folder.
            per_job: number of victims of a job.
            limits: of Slurm.
        """
        self.batches: list[CommandBatch] = []
        self.left_out = 0
        self._path = path
        self._most = limits.array
        # One is for the report.
        self._room = None if limits.jobs is None else max(0, limits.jobs - 1)
        self._numbers: Counter[Stage] = Counter()
        self._jobs = dict(queued)
        crafts = [key for key in grid.crafts if key in missing]
        packs = _packed(_by_crafts(grid, missing, {*crafts, *queued}), per_job)
        self._add_crafts(crafts, packs)
        self._add("victim", packs.pop((), []))
        for group, waiting in packs.items():
            self._add_waiting(group, waiting)
        if self.batches:
            names = [f"{{{batch.name}}}" for batch in self.batches]
            after = ":".join(["afterany", *names, *sorted({job.split("_")[0] for job in queued.values()})])
            self.batches.append(CommandBatch("report", "report", [["study", "report", path]], after))

    def _add_crafts(self, crafts: Sequence[str], packs: dict[Keys, list[Keys]]) -> None:
        """Add crafts, and where it takes fewer arrays than one for each craft, the victims that wait for one of them:
        task N of an array then waits for task N of the crafts."""
        # The crafts with the most jobs of victims come first, so that the tasks that wait are always the first ones.
        crafts = sorted(crafts, key=lambda key: -len(packs.get((key,), [])))
        for part in _chunks(crafts, self._most):
            name = self._add("craft", [(key,) for key in part])
            most = len(packs.get((part[0],), []))
            if most > len(part):
                continue
            own = [packs.pop((key,), []) for key in part]
            for number in range(most):
                waiting = [jobs[number] for jobs in own if len(jobs) > number]
                self._add("victim", waiting, f"aftercorr:{{{name}}}")

    def _add_waiting(self, crafts: Keys, waiting: Sequence[Keys]) -> None:
        """Add jobs of victims that wait for the same crafts."""
        if any(key not in self._jobs for key in crafts):
            self.left_out += sum(map(len, waiting))
            return
        # Of several, those that have failed are no candidates for the best; a victim without any craft is skipped.
        kind = "afterok" if len(crafts) == 1 else "afterany"
        self._add("victim", waiting, ":".join([kind, *(self._jobs[key] for key in crafts)]))

    def _add(self, stage: Stage, jobs: Sequence[Keys], after: str = "") -> str:
        """Add arrays of these jobs, as far as there is room; returns the name of the last one."""
        fit = jobs if self._room is None else jobs[: self._room]
        self.left_out += sum(map(len, jobs[len(fit) :]))
        if self._room is not None:
            self._room -= len(fit)
        name = ""
        for part in _chunks(fit, self._most):
            self._numbers[stage] += 1
            name = stage if self._numbers[stage] == 1 else f"{stage}-{self._numbers[stage]}"
            commands = [["study", "item", self._path, *keys] for keys in part]
            self.batches.append(CommandBatch(name, stage, commands, after, part))
            self._jobs |= {key: f"{{{name}}}_{index}" for index, keys in enumerate(part) for key in keys}
        return name


def _by_crafts(grid: StudyGrid, missing: Collection[str], unfinished: Collection[str]) -> dict[Keys, list[str]]:
    """Missing victims by the unfinished crafts that they wait for."""
    found: dict[Keys, list[str]] = defaultdict(list)
    for key, victim in grid.victims.items():
        if key in missing:
            found[tuple(craft for craft in victim.crafts if craft in unfinished)].append(key)
    return found


def _packed(victims: Mapping[Keys, list[str]], per_job: int) -> dict[Keys, list[Keys]]:
    """Victims of a job, by the crafts that the job waits for.

    A job has victims of one craft as long as they fill it; what is left over shares jobs, whatever it waits for.
    """
    packs: dict[Keys, list[Keys]] = defaultdict(list)
    rest: list[tuple[str, Keys]] = []
    for crafts, keys in victims.items():
        whole = len(keys) - len(keys) % per_job if crafts else len(keys)
        packs[crafts] += _chunks(keys[:whole], per_job)
        rest += [(key, crafts) for key in keys[whole:]]
    for part in _chunks(rest, per_job):
        crafts = tuple(dict.fromkeys(craft for _, needed in part for craft in needed))
        packs[crafts].append(tuple(key for key, _ in part))
    return packs


def _chunks(values: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    return (tuple(values[start : start + size]) for start in range(0, len(values), size))
