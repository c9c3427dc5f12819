"""The hash list of a published copy: SHA-256 of every file, as `sha256sum --check` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcule.config.errors import DataError
from hpcule.store.files import sha256_file


@dataclass(frozen=True)
class FileHash:
    """A file by its path below the copy, with slashes; its size and SHA-256."""

    file: str
    bytes: int
    sha256: str


def file_hashes(copy: Path) -> list[FileHash]:
    """Hash all files of a copy, a folder or a single file, in the order of their paths.

    Raises:
        DataError: a file cannot be read, or is none (a link could lead anywhere).
    """
    folder = copy if copy.is_dir() else copy.parent
    paths = [path for path in copy.rglob("*") if not path.is_dir() or path.is_symlink()] if copy.is_dir() else [copy]
    return [_hash(folder, file) for file in sorted(path.relative_to(folder).as_posix() for path in paths)]


def hash_list(hashes: list[FileHash]) -> bytes:
    """The lines of `sha256sum`, which marks a line and escapes where a name has a backslash or a new line in it."""
    return b"".join(_line(entry) for entry in hashes)


def read_hash_list(text: bytes) -> dict[str, str]:
    """SHA-256 by path, of a list that `hash_list` made; a damaged line has the hash of no file."""
    found = {}
    for line in text.split(b"\n")[:-1]:
        digest, _, name = line.removeprefix(b"\\").partition(b"  ")
        if line.startswith(b"\\"):
            name = b"\\".join(part.replace(b"\\n", b"\n").replace(b"\\r", b"\r") for part in name.split(b"\\\\"))
        found[name.decode(errors="surrogateescape")] = digest.decode(errors="replace")
    return found


def _hash(folder: Path, file: str) -> FileHash:
    path = folder / file
    if path.is_symlink() or not path.is_file():
        raise DataError(f"{path} is a link or no regular file, and a published copy holds none")
    try:
        return FileHash(file, path.stat().st_size, sha256_file(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _line(entry: FileHash) -> bytes:
    # Names need not be UTF-8, but Python's names of files are their bytes.
    name = entry.file.encode(errors="surrogateescape")
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + entry.sha256.encode() + b"  " + escaped + b"\n"
