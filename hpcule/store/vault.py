"""A store's folder with the key that opens it, and its small files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpcule.config.errors import StoreError
from hpcule.config.tree import Tree
from hpcule.store.files import check_json_size, parse_json, write_atomically
from hpcule.store.seal import Key, SealedFile, is_sealed

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Vault:
    """A store's folder and the key that opens it.

    Files are named by their paths in the store, with slashes.

    Attributes:
        path: the folder.
        key: the key that every file of the store is encrypted with; None: the store is not encrypted.
    """

    path: Path
    key: Key | None = None

    @property
    def begun(self) -> bool:
        """Whether the folder holds a manifest: a store, finished or not."""
        return (self.path / MANIFEST).exists()

    def sealed(self, data: bytes | memoryview, file: str) -> bytes | memoryview:
        """The bytes of a file as they are written: encrypted where there is a key."""
        return data if self.key is None else self.key.seal(data, file)

    def write(self, file: str, data: bytes | memoryview, *, listed: bool = True) -> bytes | memoryview:
        """Write a file atomically, encrypted where there is a key, and return the bytes that were written; for `listed`
        see `hpcule.store.files.write_atomically`.

        Raises:
            StoreError: it cannot be written.
        """
        written = self.sealed(data, file)
        write_atomically(self.path / file, written, listed=listed)
        return written

    def read(self, file: str, start: int = 0, size: int | None = None) -> bytes:
        """Read a file, or `size` of its bytes from `start` on.

        Raises:
            StoreError: it is encrypted and there is no key, or another one.
            ValueError: there is a key and the file is not encrypted, or damaged.
            OSError: it cannot be read.
        """
        path = self.path / file
        if self.key is None:
            if is_sealed(path):
                raise StoreError(f"{self.path} is encrypted: name its key with --key")
            with path.open("rb") as plain:
                rest = max(0, os.fstat(plain.fileno()).st_size - start)
                plain.seek(start)
                return plain.read(rest if size is None else min(size, rest))
        with SealedFile(path, file, self.key) as opened:
            opened.seek(start)
            rest = max(0, opened.size - start)
            data = bytearray(rest if size is None else min(size, rest))
            return bytes(data[: opened.readinto(data)])

    def read_json(self, file: str) -> Tree:
        """Read a file that holds a JSON object; raises as `read` and `hpcule.store.files.read_json`."""
        check_json_size(self.path / file)
        return parse_json(self.read(file))
