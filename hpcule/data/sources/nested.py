"""Collections whose files lie at any depth: studies and series below a class, a patient, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hpcule.config.errors import DataError
from hpcule.data.source import Labels
from hpcule.data.sources.layout import Layout


class Nested:
    """The files of one kind below a folder, or below its sub-folders train, val and test."""

    def __init__(self, root: Path, belongs: Callable[[Path], bool], noun: str, exclude: tuple[str, ...] = ()) -> None:
        """Take the files below `root` for which `belongs` is true and which `exclude` does not match; `noun` says in
        messages what they are."""
        self._layout = Layout(root, ("",), noun, exclude)
        self._belongs = belongs

    def splits(self) -> tuple[str, ...]:
        """See `Layout.splits`."""
        return self._layout.splits()

    def folder(self, split: str) -> Path:
        """See `Layout.folder`."""
        return self._layout.folder(split)

    def scan(self, split: str) -> list[str]:
        """Files of a split, relative to its folder, folder by folder in the order of their names.

        Raises:
            DataError: there are none, or a link leads out of the root or to another folder.
        """
        folder = self.folder(split)
        files = [str(path.relative_to(folder)) for path in self._below(folder)]
        if not files:
            raise DataError(f"{folder} holds no {self._layout.noun}")
        return files

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`."""
        return [file for file in self._layout.excluded(split) if self._belongs(self.folder(split) / file)]

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """See `Layout.ignored`."""
        return self._layout.ignored(split, files)

    def classes(self, split: str, files: list[str]) -> tuple[Labels, tuple[str, ...]] | tuple[None, None]:
        """Class numbers int64 of a split's files, and the names of the classes of all splits.

        The first folders are the classes where every file of every split lies in one; else there are none.
        """
        everything = [file for one in self.splits() for file in (files if one == split else self.scan(one))]
        if any("/" not in file for file in everything):
            return None, None
        names = tuple(sorted({file.partition("/")[0] for file in everything}))
        number = {name: k for k, name in enumerate(names)}
        return np.array([number[file.partition("/")[0]] for file in files], np.int64), names

    def _below(self, folder: Path) -> Iterator[Path]:
        folders, files = self._layout.listed(folder)
        yield from (folder / name for name in files if self._belongs(folder / name))
        for name in folders:
            if (folder / name).is_symlink():
                raise DataError(f"{folder / name} is a link to a folder; put the folder itself there")
            yield from self._below(folder / name)
