"""How a collection's files lie in folders: a sub-folder a class (under train, val, test or not), or files alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from hpcule.config.errors import DataError, OpeningError, one_line
from hpcule.data.annotations import TABLE
from hpcule.data.source import Labels
from hpcule.data.sources.array import SPLITS

F = TypeVar("F")
T = TypeVar("T")

_THREADS = 4
_WINDOW = 256
_LAYOUT = "valid is DATA/CLASS/FILE, DATA/train/CLASS/FILE, ..., or files alone"


class UnreadableError(OpeningError):
    """One file cannot be decoded.

    Attributes:
        reason: why.
    """

    def __init__(self, seen: str, reason: str, remedy: str = "replace it") -> None:
        """Say what is seen of which file, why it cannot be decoded, and what helps."""
        super().__init__(seen, f"{remedy}, or leave out such files", "skip_unreadable", "true")
        self.reason = reason

    @classmethod
    def of(cls, path: Path, reason: str, noun: str = "", remedy: str = "replace it") -> UnreadableError:
        """Name the file, why it cannot be read, what it should be ("a DICOM image"), and what helps."""
        verb = f"read as {noun}" if noun else "decoded"
        return cls(f"{path} cannot be {verb} ({reason})", reason, remedy)


@dataclass(frozen=True)
class Layout:
    """The files of one kind below a folder.

    Attributes:
        root: the folder.
        endings: of their names, in lower case.
        noun: what they are, for messages.
        exclude: patterns of files that are left out.
        below: where they are below the folder of their split, with a slash at its end if anywhere.
        described: names of files in the root that say something of the others.
    """

    below: ClassVar[str] = ""
    described: ClassVar[tuple[str, ...]] = (TABLE,)
    root: Path
    endings: tuple[str, ...]
    noun: str
    exclude: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the collection is called."""
        return one_line(self.root.resolve().name)

    def splits(self) -> tuple[str, ...]:
        """The sub-folders if they are all called train, val or test, else "all".

        Raises:
            DataError: the folder cannot be listed, or a link leads out of it.
        """
        folders, _ = self.listed(self.root)
        named = folders and set(folders) <= set(SPLITS)
        return tuple(split for split in SPLITS if split in folders) if named else ("all",)

    def folder(self, split: str) -> Path:
        """Where the files of a split are."""
        return self.root if split == "all" else self.root / split

    def scan(self, split: str) -> list[str]:
        """Files of a split, relative to its folder, in the order of their ids: that of (class, file) names.

        Raises:
            DataError: there are none, a class without any, some next to class folders, a link that leads out.
        """
        folder, noun = self.folder(split) / self.below, self.noun
        if split != "all" and self.listed(self.root)[1]:
            raise DataError(f"{self.root} holds {noun} next to the folders {', '.join(self.splits())}; {_LAYOUT}")
        classes, files = self.listed(folder)
        if classes and files:
            raise DataError(f"{folder} holds {noun} ({files[0]}) next to folders ({classes[0]}); {_LAYOUT}")
        if not classes and not files:
            raise DataError(
                f"{folder} holds no {noun}{self._but_excluded()}; valid are files that end in {', '.join(self.endings)}"
            )
        for name in classes:
            below, inside = self.listed(folder / name)
            if below:
                raise DataError(f"{folder / name / below[0]} is a folder inside the class {name}; {_LAYOUT}")
            if not inside and self._is_emptied(folder / name):
                continue
            if not inside:
                raise DataError(f"{folder / name}: class without {noun}; add some or remove the folder")
            files += [f"{name}/{file}" for file in inside]
        if not files:
            raise DataError(f"{folder} holds no {noun}{self._but_excluded()}")
        return [self.below + file for file in files]

    def place(self, file: str) -> str:
        """Where a copy has a file of a split, relative to that split's folder."""
        return file

    def excluded(self, split: str) -> list[str]:
        """Files of a split that `exclude` leaves out, relative to its folder."""
        folder, found = self.folder(split), []
        for place, folders, names in os.walk(folder) if self.exclude else ():
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            gone = any(is_excluded(one, self.root, self.exclude, folder=True) for one in _up_to(Path(place), folder))
            for name in sorted(names):
                path = Path(place, name)
                if name.startswith(".") or not name.lower().endswith(self.endings):
                    continue
                if gone or is_excluded(path, self.root, self.exclude):
                    found.append(str(path.relative_to(folder)))
        return found

    def noun_of(self, excluded: str) -> str:
        """What a file is that belongs to a sample; "" where it is excluded as the user says."""
        return ""

    def ignored(self, split: str, files: Sequence[str]) -> list[str]:
        """Files of a split besides these that are neither hidden nor excluded, relative to its folder, in order."""
        folder, known = self.folder(split), {*files, *self.excluded(split), *self.described}
        found = []
        for place, folders, names in os.walk(folder):
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not is_excluded(Path(place, name), self.root, self.exclude, folder=True)
            ]
            before = "" if (below := Path(place).relative_to(folder).as_posix()) == "." else f"{below}/"
            found += [
                before + name
                for name in names
                if not name.startswith(".")
                and before + name not in known
                and not is_excluded(Path(place, name), self.root, self.exclude)
            ]
        return sorted(found)

    def classes(self, files: Sequence[str], split: str) -> tuple[Labels, tuple[str, ...]] | tuple[None, None]:
        """Class numbers int64 of a split's files, and the names of the classes of all splits; None for files alone."""
        files = [file.removeprefix(self.below) for file in files]
        if "/" not in files[0]:
            return None, None
        folders = [self.folder(split) / self.below for split in self.splits()]
        found = [(folder, name) for folder in folders for name in self.listed(folder)[0]]
        names = tuple(sorted({name for folder, name in found if not self._is_emptied(folder / name)}))
        number = {name: k for k, name in enumerate(names)}
        return np.array([number[file.partition("/")[0]] for file in files], np.int64), names

    def listed(self, folder: Path) -> tuple[list[str], list[str]]:
        """Sorted names of the sub-folders and of the files; hidden and excluded ones and files of other kinds are not
        listed.

        Raises:
            DataError: the folder cannot be listed, or a link leads out of the root.
        """
        folders, files = [], []
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}") from None
        for entry in entries:
            if is_excluded(Path(entry.path), self.root, self.exclude, folder=entry.is_dir(follow_symlinks=False)):
                continue
            if entry.is_symlink() and not self._contains(Path(entry.path)):
                raise DataError(f"{entry.path} is a link that leads out of {self.root}; put the file itself there")
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(self.endings):
                files.append(entry.name)
        return sorted(folders), sorted(files)

    def _is_emptied(self, folder: Path) -> bool:
        """Whether a folder of a class has files, and `exclude` leaves all of them out."""
        return bool(self.exclude) and not self.listed(folder)[1] and bool(replace(self, exclude=()).listed(folder)[1])

    def _but_excluded(self) -> str:
        return f" besides those that exclude={list(self.exclude)} leaves out" if self.exclude else ""

    def _contains(self, link: Path) -> bool:
        try:
            return link.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):  # Python 3.13 raises the former for a link to itself, 3.11 the latter
            raise DataError(f"{link} is a link that leads nowhere; put the file itself there") from None


def is_excluded(path: Path, root: Path, patterns: Sequence[str], *, folder: bool = False) -> bool:
    """Whether a pattern matches the path of a file, or of a folder with a slash at its end, below the root or below the
    folder of its split."""
    if not patterns:
        return False
    name = path.relative_to(root).as_posix() + ("/" if folder else "")
    split, _, below = name.partition("/")
    names = (name, below) if split in SPLITS and below else (name,)
    return any(fnmatchcase(one, pattern) for one in names for pattern in patterns)


def files_below(root: Path, exclude: Sequence[str]) -> Iterator[Path]:
    """Files at any depth that are not excluded; links to folders are not followed."""
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not is_excluded(Path(place, name), root, exclude, folder=True)]
        yield from (path for path in map(Path(place).joinpath, names) if not is_excluded(path, root, exclude))


def _up_to(path: Path, folder: Path) -> Iterator[Path]:
    """The path and the folders that it lies in, below `folder`."""
    while path != folder:
        yield path
        path = path.parent


def each(function: Callable[[F], T], files: Sequence[F]) -> list[T]:
    """Apply a function to each file, some at once: decoding frees the interpreter, and shared disks answer slowly."""
    results: list[T] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(files), _WINDOW):
            results.extend(pool.map(function, files[first : first + _WINDOW]))
    return results
