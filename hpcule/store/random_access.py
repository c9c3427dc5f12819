"""What is read, and perhaps written, at any place, as h5py wants its files."""

from __future__ import annotations

import io
import os
from abc import abstractmethod


class RandomAccess(io.RawIOBase):
    """A file that is none of the operating system's: where the next byte comes from, or goes."""

    _place = 0

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the file in bytes."""

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the place can be set: always."""
        return True

    def tell(self) -> int:
        """The place of the next byte, counted from the beginning."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the place of the next byte, and return it."""
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence] + offset
        return self._place
