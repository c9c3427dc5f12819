"""The command line: `hpcule VERB ...`, the same as `python -m hpcule VERB ...`."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from hpcule.cli.options import Verbs
from hpcule.config.errors import HpculeError, StoppedError, one_line
from hpcule.config.version import __version__
from hpcule.world.launcher import MEETING
from hpcule.world.signals import Interrupted, die_with_parent, stop_in_time, stop_on_signals

VERBS = {
    **{
        verb: verb
        for verb in ("demo", "methods", "settings", "craft", "verify", "export", "inspect", "revert", "key", "train")
    },
    **{verb: verb for verb in ("evaluate", "compare", "recommend")},
    **dict.fromkeys(("certify", "distance", "recover", "probe"), "probes"),
    **{verb: verb for verb in ("study", "reproduce", "plan", "scale", "doctor")},
    "trial": "scale",
}
"""Module of hpcule.cli that declares a verb, by verb, in the order of `hpcule --help`."""


def add_verbs(verbs: Verbs, asked: str | None = None) -> None:
    """Declare the verb that is asked for, whose module alone is imported; all verbs if `asked` is none of them."""
    modules = [VERBS[asked]] if asked in VERBS else dict.fromkeys(VERBS.values())
    for module in modules:
        import_module(f"hpcule.cli.{module}").add_to(verbs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run one verb, and turn errors into one line and an exit code: 0 done, 1 failed, 2 wrong use."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="hpcule",
        description="Make image collections unlearnable, on one process or many, and measure what protection is left.",
    )
    parser.add_argument("--version", action="version", version=f"hpcule {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_verbs(verbs, given[0] if given else None)
    options = parser.parse_args(given)
    options.given = given
    try:
        stop_in_time()
        options.run(options)
    except HpculeError as error:
        print(f"hpcule: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"hpcule: out of memory ({one_line(str(error))}): smaller samples, or fewer workers", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        return _interrupted(error)
    return 0


def run() -> NoReturn:
    """`main` as a whole process, which ends without taking the interpreter down.

    Threads of gloo live as long as somebody keeps a process group, as DeepSpeed does; one that lets go of a tensor
    while the interpreter goes down aborts the process (https://github.com/pytorch/pytorch/pull/179291).
    """
    die_with_parent()
    _keep_cache_private()
    if isinstance(sys.stdout, TextIOWrapper):
        # Names of files need not be UTF-8; to fail in the last line would lose the rest of it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        stop_on_signals(quietly=MEETING in os.environ)
        code = main()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt as error:
        code = _interrupted(error)
    os._exit(code)


def _keep_cache_private() -> None:
    """Give torch's compiler a cache below the home folder: its own has a name in TMPDIR that anybody can take first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hpcule" / "torch"
    with contextlib.suppress(OSError, RuntimeError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))


def _interrupted(error: KeyboardInterrupt) -> int:
    """Say so; the exit code is of a signal for Ctrl-C, and of what may be run again for a batch system's signals."""
    if MEETING in os.environ:  # a rank of ours: its parent says so, once
        return StoppedError.exit_code
    if isinstance(error, Interrupted) and error.number != signal.SIGINT:
        print(f"hpcule: {error}", file=sys.stderr)
        return StoppedError.exit_code
    print("hpcule: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT


def _reader_has_gone() -> bool:
    """Whether who reads what we print has seen enough, as `head` has."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
