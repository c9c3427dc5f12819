"""What a user may do wrong, and what may fail: one line each, with what was seen, what is valid, and the remedy."""


def one_line(text: str) -> str:
    """A text that may quote a foreign name: line breaks and whatever else cannot be printed, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_line(error: Exception) -> str:
    """What an exception says, on one line, or its name: libraries say a good deal more."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class HpculeError(Exception):
    """Something failed. The command prints the message on one line and exits with `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(HpculeError):
    """The command or its configuration is wrong; nothing was started."""

    exit_code = 2


class DataError(HpculeError):
    """A source cannot be used as it is."""


class StoreError(HpculeError):
    """A store is damaged, in use, or not what was asked for."""


class WorkerError(HpculeError):
    """A worker of a distributed run died; the message names rank, host and the worker's own error."""


class PeerLostError(WorkerError):
    """Another rank went away during a collective: a consequence, never the cause, of a failed run."""

    exit_code = 69
    """EX_UNAVAILABLE of sysexits.h: perhaps a node was lost; the run may succeed on others."""


class StoppedError(HpculeError):
    """The run was asked to stop by a signal; its checkpoint is written and `--resume` continues it."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: not failed, run it again. A batch script requeues on it."""
