"""Results that several crafts on the same samples share, kept once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.store.files import private_directory, write_atomically

Array = npt.NDArray[Any]


class Cache:
    """Arrays by name, in a folder that many runs may share; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def get(self, parts: tuple[Any, ...], compute: Callable[[], Array]) -> Array:
        """The array of these parts: as an earlier run left it, or computed and left for the next.

        Args:
            parts: everything that the array depends on, apart from the samples; plain values.
            compute: makes the array.
        """
        if self._folder is None:
            return compute()
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        path = self._folder / f"{name}.npy"
        try:
            with path.open("rb") as file:
                kept: Array = np.lib.format.read_array(file, allow_pickle=False)
            return kept
        except Exception:  # not there, or damaged, of which numpy raises whatever its parsers do
            array = compute()
        private_directory(self._folder)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_atomically(path, buffer.getvalue())
        return array
