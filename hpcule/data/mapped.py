"""Files mapped into memory, without the growth of memory that mapping brings."""

from __future__ import annotations

import mmap

KEPT_BYTES = 512 << 20
"""Of the pages that a process keeps of a mapped set."""
_AROUND = 5
"""Where samples are read at random, a page fault maps so many times what was asked for: sixteen pages together."""


class Pages:
    """Pages of mapped files that the process has touched.

    They count as its resident memory until somebody else wants that memory, and batch systems kill for resident memory.
    Given back they stay in the file system's cache, where touching them again finds them.
    """

    def __init__(self, *mappings: mmap.mmap) -> None:
        self._mappings = list(mappings)
        self._touched = 0

    def add(self, mapping: mmap.mmap) -> None:
        """Count one more file."""
        self._mappings.append(mapping)

    def touched(self, size: int) -> None:
        """Note that so many bytes were read, and give all pages back where they may have become too many."""
        self._touched += size
        if min(_AROUND * self._touched, sum(map(len, self._mappings))) > KEPT_BYTES:
            for mapping in self._mappings:
                # Not every system can.
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapping.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def __getstate__(self) -> dict[str, object]:
        """In another process the arrays are copies in memory."""
        return {"_mappings": [], "_touched": 0}
