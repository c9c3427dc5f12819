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
        """Bytes of the file."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence] + offset
        return self._place
