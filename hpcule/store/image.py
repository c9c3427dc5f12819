"""Files that are put together in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcule.store.random_access import RandomAccess

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STEP = 1 << 20


class Image(RandomAccess):
    """A file in memory whose room is kept from one use to the next.

    Half of the time that an HDF5 file in memory takes is the kernel's, which clears fresh pages; these are used again.
    """

    def __init__(self) -> None:
        self._room = bytearray()
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._end

    def reset(self) -> None:
        """Begin another file. No view of the last one may be in use."""
        self._place = self._end = 0

    def view(self) -> memoryview:
        """All that was written; for reading, until `reset`."""
        return memoryview(self._room)[: self._end].toreadonly()

    def writable(self) -> bool:
        """Whether the image can be written: always."""
        return True

    def truncate(self, size: int | None = None, /) -> int:
        """Cut the file off, or lengthen it with zeros."""
        end = self._place if size is None else size
        self._lengthen(end)
        self._end = end
        return end

    def write(self, data: Buffer, /) -> int:
        """Put bytes at the place; zeros where that lies beyond the end."""
        view = memoryview(data).cast("B")
        start, stop = self._place, self._place + len(view)
        self._lengthen(start)
        self._reach(stop)
        self._room[start:stop] = view
        self._place, self._end = stop, max(self._end, stop)
        return len(view)

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._end - self._place))
        view[:count] = memoryview(self._room)[self._place : self._place + count]
        self._place += count
        return count

    def _lengthen(self, end: int) -> None:
        """Fill with zeros: what lies beyond the end may belong to an earlier file."""
        if end > self._end:
            self._reach(end)
            self._room[self._end : end] = bytes(end - self._end)
            self._end = end

    def _reach(self, stop: int) -> None:
        if stop > len(self._room):
            self._room.extend(bytes(max(_STEP, stop - len(self._room))))
