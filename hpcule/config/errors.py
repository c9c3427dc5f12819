"""What a user may do wrong, and what may fail: one line each, with what was seen, what is valid, and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager


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


class OpeningError(DataError):
    """A source cannot be used as it is opened, and a setting of the opening helps.

    Attributes:
        seen: what is wrong.
        remedy: what the setting does.
        name: of the setting.
        value: what to set it to.
    """

    def __init__(self, seen: str, remedy: str, name: str, value: str) -> None:
        """Keep the parts, so that whoever knows where the setting is written can say so; see `setting_in`."""
        super().__init__(seen, remedy, name, value)
        self.seen, self.remedy, self.name, self.value = seen, remedy, name, value

    def __str__(self) -> str:
        return one_line(f"{self.seen}; {self.remedy} with {IN_SET.format(name=self.name, value=self.value)}")


@contextmanager
def setting_in(place: str) -> Iterator[None]:
    """Let the `OpeningError`s of the block say where the setting is written.

    Args:
        place: with the fields {name} and {value}.
    """
    try:
        yield
    except OpeningError as error:
        where = place.format(name=error.name, value=error.value)
        raise DataError(f"{error.seen}; {error.remedy} with {where}") from None


IN_SET = "--set {name}={value}"
IN_STORE = "--set {name}={value} when the store is crafted"
IN_STUDY = "craft: {{{name}: {value}}} in the study's file"


class DivergedError(HpculeError):
    """A training ends in numbers that are not finite; all its ranks notice it at the same step."""


class StoreError(HpculeError):
    """A store is damaged, in use, or not what was asked for."""


class WorkerError(HpculeError):
    """A worker of a distributed run died; the message names rank, host and the worker's own error."""


class PeerLostError(WorkerError):
    """Another rank went away during a collective: a consequence, never the cause, of a failed run."""

    exit_code = 69
    """EX_UNAVAILABLE of sysexits.h: perhaps a node was lost; the run may succeed on others."""


class PeerTimeoutError(PeerLostError):
    """Another rank did not answer within the time-out of a collective: it hangs, or is busy for longer."""


class StoppedError(HpculeError):
    """The run was asked to stop by a signal; its checkpoint is written and `--resume` continues it."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: not failed, run it again. A batch script requeues on it."""
