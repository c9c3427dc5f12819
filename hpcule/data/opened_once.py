"""Opening samples once for all ranks: listing a folder and reading the headers of its files on each of a thousand ranks
would ask the file system for a thousand times the files."""

from __future__ import annotations

from collections.abc import Callable

from hpcule.data.source import Source
from hpcule.data.tiles import Tiles
from hpcule.world.group import World
from hpcule.world.plain_values import dumps, loads

_PACKAGE = "hpcule.data"


def open_once(world: World, opened: Callable[[], Source]) -> Source:
    """The source that `opened` gives on rank 0, on every rank; a collective.

    Where samples are no files, or the source holds what cannot be sent, the other ranks open it themselves.

    Raises:
        PeerLostError: on all other ranks, where rank 0 could not open it.
    """
    if world.size == 1:
        return opened()
    own: list[Source] = []

    def sent() -> bytes | None:
        own.append(opened())
        return _bytes(own[0]) if _has_files(own[0]) else None

    data = world.lead(sent)
    if own:
        return own[0]
    found: Source = opened() if data is None else loads(data, _PACKAGE)
    return found


def _has_files(source: Source) -> bool:
    return (source.images if isinstance(source, Tiles) else source).folder is not None


def _bytes(source: Source) -> bytes | None:
    """The source as bytes, or None where it holds more than its files' names and what is known of them."""
    try:
        data = dumps(source)
        loads(data, _PACKAGE)
    except Exception:  # whatever keeps it from being sent
        return None
    return data
