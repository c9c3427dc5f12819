"""The arrays of a study: crafts, victims that each wait for their own craft, and the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from hpcule.config.errors import UsageError
from hpcule.jobs.limits import Limits
from hpcule.jobs.site import SiteConfig, Stage
from hpcule.jobs.submit import CommandBatch
from hpcule.study.grid import StudyGrid, StudyVictim
from hpcule.study.items import require_ranks

Keys = tuple[str, ...]
"""Keys of items: the victims of one job, or the crafts that they wait for."""
T = TypeVar("T")


IN_SITE = "set nodes and tasks_per_node in the site's section `victim` to {ranks} ranks, or leave both out"


def check_jobs(site: SiteConfig, victims: Sequence[StudyVictim]) -> None:
    """Refuse a site whose jobs cannot train these victims.

    Raises:
        UsageError: a job has another number of ranks than they take, or ranks that would train nothing.
    """
    for workers in {victim.workers for victim in victims}:
        ranks, dealt = site.resources("victim", workers).ranks, site.dealt_victims(workers)
        require_ranks([victim for victim in victims if victim.workers == workers], ranks, IN_SITE)
        if dealt * workers < ranks:
            raise UsageError(
                f"victims_per_job={dealt}: of the {ranks} ranks of a job, {ranks - dealt * workers} would train nothing"
                f"; leave it out, or let more ranks train one victim: victim.workers={workers} in the study"
            )


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
        per_job: Callable[[int], int],
        limits: Limits,
    ) -> None:
        """Arrange the items.

        Args:
            grid: of the study.
            missing: keys of the items to be submitted.
            queued: names of jobs that wait or run already, by item.
            path: of the study's folder.
            per_job: number of victims of a job, by the number of ranks that train one.
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
        unfinished = {*crafts, *queued}
        packs = {
            workers: _packed(_by_crafts(grid, own, unfinished), per_job(workers))
            for workers, own in _by_workers(grid, missing).items()
        }
        self._add_crafts(crafts, packs)
        for workers, own_packs in packs.items():
            self._add("victim", own_packs.pop((), []), workers=workers)
            for group, waiting in own_packs.items():
                self._add_waiting(group, waiting, workers)
        if self.batches:
            names = [f"{{{batch.name}}}" for batch in self.batches]
            after = ":".join(["afterany", *names, *sorted({job.split("_")[0] for job in queued.values()})])
            self.batches.append(CommandBatch("report", "report", [["study", "report", path]], after))

    def _add_crafts(self, crafts: Sequence[str], packs: Mapping[int, dict[Keys, list[Keys]]]) -> None:
        """Add crafts, and victims that wait for one of them."""
        # The crafts with the most jobs of victims come first, so that the tasks that wait are always the first ones.
        crafts = sorted(crafts, key=lambda key: [-len(own.get((key,), [])) for own in packs.values()])
        for part in _chunks(crafts, self._most):
            name = self._add("craft", [(key,) for key in part])
            for workers, own in packs.items():
                self._add_corresponding(part, own, name, workers)

    def _add_corresponding(self, crafts: Keys, packs: dict[Keys, list[Keys]], name: str, workers: int) -> None:
        """Add the victims that wait for one of these crafts, where it takes fewer arrays than one for each craft: task
        N of an array then waits for task N of the array of that name."""
        counts = [len(packs.get((key,), [])) for key in crafts]
        if counts[0] > len(crafts) or counts != sorted(counts, reverse=True):
            return
        own = [packs.pop((key,), []) for key in crafts]
        for number in range(counts[0]):
            waiting = [jobs[number] for jobs in own if len(jobs) > number]
            self._add("victim", waiting, f"aftercorr:{{{name}}}", workers)

    def _add_waiting(self, crafts: Keys, waiting: Sequence[Keys], workers: int) -> None:
        """Add jobs of victims that wait for the same crafts."""
        if any(key not in self._jobs for key in crafts):
            self.left_out += sum(map(len, waiting))
            return
        # Of several, those that have failed are no candidates for the best; a victim without any craft is skipped.
        kind = "afterok" if len(crafts) == 1 else "afterany"
        self._add("victim", waiting, ":".join([kind, *(self._jobs[key] for key in crafts)]), workers)

    def _add(self, stage: Stage, jobs: Sequence[Keys], after: str = "", workers: int = 1) -> str:
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
            self.batches.append(CommandBatch(name, stage, commands, after, part, workers))
            self._jobs |= {key: f"{{{name}}}_{index}" for index, keys in enumerate(part) for key in keys}
        return name


def _by_workers(grid: StudyGrid, missing: Collection[str]) -> dict[int, list[str]]:
    """Missing victims by the number of ranks that train one: a job has victims of one number."""
    found: dict[int, list[str]] = defaultdict(list)
    for key, victim in grid.victims.items():
        if key in missing:
            found[victim.workers].append(key)
    return found


def _by_crafts(grid: StudyGrid, victims: Sequence[str], unfinished: Collection[str]) -> dict[Keys, list[str]]:
    """Victims by the unfinished crafts that they wait for."""
    found: dict[Keys, list[str]] = defaultdict(list)
    for key in victims:
        found[tuple(craft for craft in grid.victims[key].crafts if craft in unfinished)].append(key)
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
