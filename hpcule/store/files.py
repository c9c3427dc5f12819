"""Files that appear whole or not at all, in folders that nobody else can read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcule.config.errors import StoreError, UsageError
from hpcule.config.tree import Tree

_PARTIAL = re.compile(r"\.(.+)\.[^.]+\.partial")

RESULTS = ("results.json", "report.html", "config.yaml")
"""Files that verbs write into --out, the one that says where it is from first."""
_MIB = 1 << 20
_LARGEST_JSON = 64 * _MIB


def write_atomically(
    path: Path, data: bytes | memoryview, mode: int = 0o600, *, durable: bool = True, listed: bool = True
) -> None:
    """Write a file so that a reader, or the next run after a crash, sees all of it or the previous one.

    The file is made under a name that nobody can guess. A link at `path` is replaced, not followed.

    Args:
        path: where the file goes; what has this name is replaced.
        data: its content.
        mode: its permissions, from the first byte on.
        durable: whether to wait until the disk has it.
        listed: whether to wait until the disk has its name, too; else a later file of the folder does so for all.

    Raises:
        StoreError: the disk is full, the folder cannot be written, or the file would be too large.
    """
    size = len(data) if isinstance(data, bytes) else data.nbytes
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        temporary.replace(path)
        if durable and listed:
            sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path, size) from error
    finally:
        if temporary is not None:
            # What cannot be removed now, `begin` of the resume removes.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def leftover_of(path: Path) -> str | None:
    """The name of the file that a killed `write_atomically` was going to write; None if `path` is none of its files."""
    found = _PARTIAL.fullmatch(path.name)
    return found[1] if found and path.is_file() and not path.is_symlink() else None


def discard(path: Path) -> None:
    """Remove a file of ours, where it is there, and what a killed `write_atomically` of it has left behind."""
    path.unlink(missing_ok=True)
    for other in path.parent.iterdir():
        if leftover_of(other) == path.name:
            other.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses about `path` into a StoreError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, 0) from error


def storage_error(error: OSError, path: Path, size: int, again: str = "run again with --resume") -> StoreError:
    """Say in one line why `path`, which needs `size` bytes, could not be written, and what helps."""
    folder, mib = path.parent, max(1, -(-size // _MIB))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"disk full while writing {path.name} (needs {mib} MiB in {folder}): free space, then {again}"
        )
    if error.errno == errno.EFBIG:
        return StoreError(
            f"{path.name} ({mib} MiB) is larger than a file may be in {folder}: "
            f"raise the limit (ulimit -f) or choose another file system, then {again}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(f"no permission to write {path.name} in {folder}: choose a folder that you may write")
    if error.errno == errno.EROFS:
        return StoreError(f"cannot write {path.name}: {folder} is on a read-only file system; choose another folder")
    return StoreError(f"cannot write {path.name} in {folder}: {error.strerror or error}")


def private_directory(path: Path) -> None:
    """Create a folder with mode 0700, with its parents; tighten one that is there and is ours.

    Raises:
        StoreError: it cannot be created, or something that is not a folder has the name.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
        if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != 0o700:
            path.chmod(0o700)
    except FileExistsError as error:
        raise StoreError(f"{path} is a file where a folder is needed: choose another name") from error
    except OSError as error:
        raise storage_error(error, path, 0) from error


def require_own_results(out: Path) -> None:
    """Check that a folder for results holds none, or those of an earlier run, which are replaced.

    Raises:
        UsageError: it holds files of the same names that hpcule did not write.
    """
    there = [name for name in RESULTS if os.path.lexists(out / name)]
    try:
        ours = not there or "hpcule" in read_json(out / RESULTS[0])
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UsageError(f"{out} holds {there[0]} from elsewhere, which would be replaced: name another --out")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; the file is streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(document: Mapping[str, object]) -> bytes:
    """Return readable JSON with a final newline; NaN and infinity are refused."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Tree:
    """Read a JSON object that may come from a stranger.

    Raises:
        OSError: the file cannot be read.
        ValueError: too large for what it should be, not JSON, not an object, or with NaN, infinity or a whole number
            of more than 64 bits in it.
    """
    check_json_size(path)
    return parse_json(path.read_bytes())


def check_json_size(path: Path) -> None:
    """Raise ValueError where a file is too large for JSON of ours, before it is read."""
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"larger than {_LARGEST_JSON // _MIB} MiB")


def parse_json(data: bytes) -> Tree:
    """Parse a JSON object; raises ValueError as `read_json`."""
    try:
        document = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_of_64_bits)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    """The number, unless it is beyond what a float holds: 1e999 would be read as infinity."""
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _of_64_bits(text: str) -> int:
    """The whole number, unless it is beyond what an array holds."""
    if len(text) > 20 or not -(1 << 63) <= (number := int(text)) < 1 << 63:
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def sync_folder(folder: Path) -> None:
    """Make a rename durable; some network file systems cannot and say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
