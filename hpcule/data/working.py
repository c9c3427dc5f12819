"""Samples that were expensive to make, kept in a file on this node where memory is too small for them."""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Callable

import numpy as np

from hpcule.data.source import Ids, Samples, Source

_BLOCK_BYTES = 64 << 20
"""Made at a time."""
_log = logging.getLogger(__name__)


class WorkingFile:
    """Rows that are made once, when they are first read, and read from a file afterwards.

    The file lies in the temporary folder (TMPDIR) and has no name: it is gone with the process, however it ends. It
    takes as much as was read, and reading it takes no memory of the process. Where the disk is full, what does not fit
    is computed again each time.

    Args:
        count: of the rows.
        row: shape and dtype of one.
        make: rows [n, ...] by their numbers.
    """

    def __init__(self, count: int, row: Samples, make: Callable[[Ids], Samples]) -> None:
        self._shape, self._dtype, self._size = row.shape, row.dtype, row.nbytes
        self._make = make
        self._known = np.zeros(count, bool)
        self._full = False
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def read(self, numbers: Ids) -> Samples:
        """Rows [n, ...] in the order of `numbers`."""
        new = np.unique(numbers[~self._known[numbers]])
        if self._full and len(new):
            return self._make(numbers)
        rows = max(1, _BLOCK_BYTES // self._size)
        for start in range(0, len(new), rows):
            self._keep(new[start : start + rows])
        if self._full and not self._known[numbers].all():
            return self._make(numbers)
        found = np.empty((len(numbers), *self._shape), self._dtype)
        target = found.reshape(-1).view(np.uint8).data
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        lengths = np.diff(starts, append=len(numbers)) * self._size
        for start, first, length in zip(starts.tolist(), numbers[starts].tolist(), lengths.tolist(), strict=True):
            to = start * self._size
            # One call reads 2 GiB at most.
            for part in range(0, length, 1 << 30):
                end = min(part + (1 << 30), length)
                read = os.preadv(self._file, [target[to + part : to + end]], first * self._size + part)
                assert read == end - part, "the file holds what was written"
        return found

    def _keep(self, numbers: Ids) -> None:
        made = np.ascontiguousarray(self._make(numbers))
        try:
            for number, row in zip(numbers.tolist(), made, strict=True):
                os.pwrite(self._file, row.data, number * self._size)
        except OSError as error:
            self._full = True
            _log.warning(
                "%s has no room for decoded samples (%s), which are decoded at every use now: set TMPDIR to a larger "
                "folder",
                tempfile.gettempdir(),
                error.strerror,
            )
            return
        self._known[numbers] = True


def working_file(source: Source) -> WorkingFile:
    """Create a working file for the samples of a source."""
    return WorkingFile(len(source), np.empty(source.shape, source.dtype), source.read)
