"""From one command to as many ranks as it asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hpcule.cli.opened import say
from hpcule.config.errors import HpculeError, StoppedError, UsageError
from hpcule.config.run import WorldConfig
from hpcule.world.allocation import keep_freed_memory
from hpcule.world.group import World, connected
from hpcule.world.launcher import Place, detect
from hpcule.world.local import report_failure, run_workers


def ranks_of_run(workers: int | None) -> int:
    """Number of ranks on which `on_all_ranks` runs its work.

    Args:
        workers: --workers.
    """
    return max(detect().size, workers or 1)


def on_all_ranks(
    work: Callable[[World], None],
    *,
    given: Sequence[str],
    workers: int | None,
    config: WorldConfig,
    deterministic: bool = False,
    check: Callable[[int], None] = lambda workers: None,
    notices: Callable[[], Sequence[str | None]] = tuple,
) -> None:
    """Run `work` on every rank of the run.

    Started by a launcher, this process is one of its ranks. Otherwise `workers` local processes are started, each with
    the same command line; with one worker, `work` runs right here.

    Args:
        work: gets the world; rank 0 prints and writes what is shared.
        given: this command's own arguments.
        workers: --workers.
        config: threads, device, time-outs.
        deterministic: one thread, and no operators that are not reproducible.
        check: gets the number of workers, and refuses what can be refused before any process starts.
        notices: called on rank 0 alone, for what it has to say first on standard error: to find that out may take
            reading samples.

    Raises:
        UsageError: --workers contradicts the launcher.
    """
    place = detect()
    if place.size > 1 and workers not in (None, place.size):
        raise UsageError(f"--workers {workers}, but {place.launcher} started {place.size}: leave one of them out")
    if place.size == 1 and (workers or 1) > 1:
        if place.launcher != "single":
            raise UsageError(
                f"--workers {workers} under {place.launcher}, which started a single process: ask it for more"
            )
        check(workers or 1)
        run_workers(given, workers or 1)
        return
    if place.rank == 0:
        say(*notices())
    try:
        if place.size == 1:
            check(1)
        keep_freed_memory()
        with connected(place, config, deterministic=deterministic) as world:
            work(world)
    except BaseException as error:
        if place.size == 1:
            raise
        _leave(place, error)


def _leave(place: Place, error: BaseException) -> NoReturn:
    """End this rank at once: an orderly exit would wait for peers that wait for us."""
    report_failure(place, error)
    if not isinstance(error, HpculeError) and not isinstance(error, KeyboardInterrupt):
        import traceback

        traceback.print_exc()
    elif not place.error_file:
        print(f"hpcule: rank {place.rank} on {place.host}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(error, KeyboardInterrupt):
        os._exit(StoppedError.exit_code)
    os._exit(error.exit_code if isinstance(error, HpculeError) else 1)
