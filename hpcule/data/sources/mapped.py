"""Files mapped into memory, without the growth of memory that mapping brings."""

from __future__ import annotations

import mmap
from pathlib import Path

KEPT_BYTES = 512 << 20
"""Bytes of mapped pages that a process keeps, including those of programs and libraries."""
_STATUS = Path("/proc/self/status")


class Pages:
    """Pages of mapped files that the process has touched.

    They count as its resident memory until somebody else wants that memory, and batch systems kill for resident memory.
    Given back they stay in the file system's cache, where touching them again finds them. How many there are only the
    kernel knows: to touch one may map a hundred neighbours.
    """

    def __init__(self, *mappings: mmap.mmap) -> None:
        self._mappings = list(mappings)

    def add(self, mapping: mmap.mmap) -> None:
        """Count one more file."""
        self._mappings.append(mapping)

    def touched(self) -> None:
        """Give all pages back where they have become too many, on systems that tell and can."""
        if sum(map(len, self._mappings)) > KEPT_BYTES and _mapped_bytes() > KEPT_BYTES:
            for mapping in self._mappings:
                mapping.madvise(mmap.MADV_DONTNEED)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the mappings: arrays that another process receives are copies in memory."""
        return {"_mappings": []}


def _mapped_bytes() -> int:
    """Resident pages of mapped files, in bytes; 0 where the system does not report them."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile:")), 0)
