"""Results of numbered work items, in a folder where each file is named by all that its item depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from hpcule.config.errors import HpculeError, StoppedError, StoreError
from hpcule.config.tree import Tree, build_config, to_tree
from hpcule.store.files import discard, private_directory, read_json, to_json, write_atomically
from hpcule.victim.keeper import Keeper
from hpcule.world.group import World
from hpcule.world.progress import note_saved
from hpcule.world.signals import StopFlag

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Item = TypeVar("Item")
Result = TypeVar("Result")
AGAIN = "delete it to do this item again"


@dataclass(frozen=True)
class Kept(Generic[Result]):
    """A folder of results, one file each; it need not be there yet.

    Attributes:
        folder: of the files.
        write: a result as a document for JSON.
        read: a result from its document.
    """

    folder: Path
    write: Callable[[Result], Mapping[str, object]]
    read: Callable[[Tree], Result]

    @classmethod
    def of(cls, folder: Path, result: type[Result]) -> Kept[Result]:
        """Keep results of a dataclass of plain values."""
        return cls(
            folder, lambda found: to_tree(cast("DataclassInstance", found)), lambda tree: build_config(result, tree)
        )

    def find(self, name: str) -> Result | None:
        """The result of this name, or None.

        Raises:
            StoreError: its file is damaged.
        """
        path = self.path(name)
        try:
            return self.read(read_json(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, HpculeError) as error:
            raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); {AGAIN}") from None

    def keep(self, name: str, result: Result) -> None:
        """Write a result, and remove the checkpoint of the training that led to it.

        Raises:
            StoreError: it cannot be written.
        """
        private_directory(self.folder)
        write_atomically(self.path(name), to_json(self.write(result)))
        note_saved()
        discard(self._checkpoint(name))

    def keeper(self, name: str, world: World, stop: StopFlag | None = None) -> Keeper:
        """Where a training whose result will have this name keeps its state until then.

        Args:
            name: of the result.
            world: the ranks that train together.
            stop: set where the training is to stop; None: signals set it.
        """
        return Keeper(world, self._checkpoint(name), stop)

    def path(self, name: str) -> Path:
        """The file of the result of this name."""
        return self.folder / f"{name}.json"

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.checkpoint"

    def missing(self, items: Mapping[Item, str], world: World) -> list[Item]:
        """The items that no file stands for, on all ranks the same."""
        found = [name for name in items.values() if self.path(name).exists()]
        # What one rank sees, all leave out, or they would not share the rest evenly.
        seen = {name for part in world.gather(found) for name in part}
        return [item for item, name in items.items() if name not in seen]

    def complete(
        self,
        items: Mapping[Item, str],
        world: World,
        do: Callable[[Item, int, int], Result],
        stop: StopFlag | None = None,
    ) -> dict[Item, Result]:
        """Do the items that no file stands for, each rank whole ones, and return the results of all.

        Args:
            items: item -> name of its result.
            world: the ranks that share the work, and the folder.
            do: called with an item, how many of its rank came before it, and how many the rank has.
            stop: what may stop `do` on one rank alone, such as a clock; None: only a signal does, which all ranks get.

        Raises:
            StoppedError: `do` was stopped; what is done is kept.
            StoreError: a file is damaged, or cannot be written.
        """
        missing = self.missing(items, world)
        there = {items[item] for item in items.keys() - set(missing)}
        found = {name: result for name in there if (result := self.find(name)) is not None}
        mine = missing[world.rank :: world.size]
        stopped: StoppedError | None = None
        for number, item in enumerate(mine):
            try:
                found[items[item]] = do(item, number, len(mine))
            except StoppedError as error:
                if stop is None:
                    raise
                stopped = error
                break
            self.keep(items[item], found[items[item]])
        # The clocks of ranks differ, and a rank that has done its items waits for the others.
        if stop is not None and any(world.gather(stopped is not None)):
            raise stopped or StoppedError("stopped on another rank")
        # As documents: results are of many types, and ranks send each other plain values alone.
        written: dict[str, Tree] = {name: dict(self.write(result)) for name, result in found.items()}
        documents = world.gather(written)
        everyone = {name: document for part in documents for name, document in part.items()}
        return {item: found[name] if name in found else self.read(everyone[name]) for item, name in items.items()}
