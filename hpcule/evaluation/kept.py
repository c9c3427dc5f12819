"""Results of numbered work items, in a folder where each file is named by all that its item depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hpcule.config.digest import digest
from hpcule.config.errors import DataError, StoreError
from hpcule.config.version import __version__
from hpcule.data.source import Ids, Source
from hpcule.store.files import private_directory, read_json, sha256_file, to_json, write_atomically
from hpcule.store.fingerprint import fingerprint
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST
from hpcule.victim.config import VictimConfig
from hpcule.world.group import World

Item = TypeVar("Item")
Found = dict[str, Any]
"""What doing an item found, as in its file."""


@dataclass(frozen=True)
class Kept:
    """The folder; it need not be there yet."""

    folder: Path

    def complete(
        self, items: Mapping[Item, str], world: World, do: Callable[[Item, int, int], Found]
    ) -> dict[Item, Found]:
        """Do the items that no file stands for, each rank whole ones, and return the results of all.

        Args:
            items: item -> name of its file.
            world: the ranks that share the work, and the folder.
            do: called with an item, how many of its rank came before it, and how many the rank has.

        Raises:
            StoreError: a file is damaged, or cannot be written.
        """
        found = {item: result for item, name in items.items() if (result := self._read(name)) is not None}
        # What one rank sees, all leave out, or they would not share the rest evenly.
        seen = {item for part in world.gather(list(found)) for item in part}
        mine = [item for item in items if item not in seen][world.rank :: world.size]
        for number, item in enumerate(mine):
            found[item] = do(item, number, len(mine))
            private_directory(self.folder)
            write_atomically(self._path(items[item]), to_json(found[item]))
        return {item: result for part in world.gather(found) for item, result in part.items()}

    def _read(self, name: str) -> Found | None:
        path = self._path(name)
        try:
            return read_json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: {error}; delete it to do this item again") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def digests(store: StoreReader, ids: Ids, test: Source) -> tuple[str, str]:
    """What results depend on that are measured on clean samples, and what those on a store's do besides.

    Args:
        store: complete.
        ids: int64 [n], of its source, that are trained on.
        test: clean test samples.
    """
    samples = (store.manifest.source.fingerprint, fingerprint(test, [(0, len(test))]), ids.tolist())
    return digest(__version__, *samples), sha256_file(store.path / MANIFEST)


def checkpoints(config: VictimConfig) -> list[str]:
    """SHA-256 of all files with weights that a victim's settings name, in order.

    Raises:
        DataError: one is not there.
    """
    found = []
    for path in (Path(name) for name in (config.checkpoint, config.purifier) if name):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        try:
            found += [sha256_file(file) for file in files if not file.is_dir()]
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found
