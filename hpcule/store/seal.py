"""Encryption at rest: files of a store that tell nothing to those who lack its owner's key.

A sealed file is a magic number, a random salt, a mark, and segments of 64 KiB, each with 16 bytes more. HKDF-SHA256
makes of the owner's key and the salt a key for this file alone, and the mark, by which a wrong key is known. Segments
are sealed with AES-256-GCM; the nonce is the segment's number and whether it is the last, so that none can be changed,
moved or cut off, and the file's name is authenticated too, so that files cannot take each other's place.

Source: the construction STREAM, Hoang, Reyhanitabar, Rogaway and Vizár, CRYPTO 2015 (eprint 2015/189).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.random_access import RandomAccess

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from typing_extensions import Buffer

KEY_BYTES = 32
SEGMENT = 64 << 10
TAG = 16
_MAGIC = b"hpcule sealed 1\n"
_SALT = 32
_MARK = 16
HEADER = len(_MAGIC) + _SALT + _MARK


@dataclass(frozen=True)
class Key:
    """The owner's key, which never appears in a message.

    Raises:
        UsageError: the extra `encryption` is not installed.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Check its length, and that the library is there: better now than in the middle of a run."""
        assert len(self.secret) == KEY_BYTES, len(self.secret)
        self.derived(bytes(_SALT))

    def seal(self, data: bytes | memoryview, name: str) -> memoryview:
        """Encrypt a file's bytes; `name` is its path in the store."""
        salt = os.urandom(_SALT)
        cipher, mark = self.derived(salt)
        view = memoryview(data).cast("B")
        sealed = bytearray(_MAGIC + salt + mark)
        count = _segments(len(view))
        for number in range(count):
            segment = view[number * SEGMENT : (number + 1) * SEGMENT]
            sealed += cipher.encrypt(_nonce(number, count), segment, name.encode())
        return memoryview(sealed)

    def derived(self, salt: bytes) -> tuple[AESGCM, bytes]:
        """The cipher of the file with this salt, and its mark."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError:
            raise UsageError('encrypted stores need a package: pip install "hpcule[encryption]"') from None
        length = KEY_BYTES + _MARK
        derived = HKDF(SHA256(), length, salt, b"hpcule sealed file 1").derive(self.secret)
        return AESGCM(derived[:KEY_BYTES]), derived[KEY_BYTES:]


class SealedFile(RandomAccess):
    """A sealed file for reading at any place, without ever holding more than a segment.

    Raises:
        StoreError: it was sealed with another key.
        ValueError: it is not a sealed file, damaged, cut off, or another file of a store; reading raises it too.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, name: str, key: Key) -> None:
        self._path, self._name = path, name.encode()
        self._held, self._segment = -1, b""
        self._file = -1  # Python closes what could not be opened, too
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(self._file, HEADER, 0)
        if len(header) < HEADER or not header.startswith(_MAGIC):
            raise ValueError("not an encrypted file, as a key is for")
        self._cipher, mark = key.derived(header[len(_MAGIC) : -_MARK])
        if mark != header[-_MARK:]:
            raise StoreError(f"{path} is encrypted with another key than the one given")
        sealed = os.fstat(self._file).st_size - HEADER
        self._size = sealed - TAG * max(1, -(-sealed // (SEGMENT + TAG)))
        if self._size < 0:
            raise ValueError("cut off")
        self._count = _segments(self._size)
        self._open(self._count - 1)  # whether that is the last one

    def __repr__(self) -> str:
        return str(self._path)  # by which h5py calls a file

    @property
    def size(self) -> int:
        """Bytes of what was sealed."""
        return self._size

    def close(self) -> None:
        """Close the file."""
        if not self.closed and self._file >= 0:
            os.close(self._file)
        super().close()

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._place))
        done = 0
        while done < count:
            number, within = divmod(self._place, SEGMENT)
            part = self._open(number)[within : within + count - done]
            view[done : done + len(part)] = part
            self._place += len(part)
            done += len(part)
        return count

    def _open(self, number: int) -> bytes:
        """Decrypt a segment, or return it where it is the one at hand."""
        from cryptography.exceptions import InvalidTag

        if number != self._held:
            sealed = os.pread(self._file, SEGMENT + TAG, HEADER + number * (SEGMENT + TAG))
            try:
                self._segment = self._cipher.decrypt(_nonce(number, self._count), sealed, self._name)
            except InvalidTag:
                raise ValueError("changed since it was encrypted, or another file's contents") from None
            self._held = number
        return self._segment


def is_sealed(path: Path) -> bool:
    """Whether a file is an encrypted one, as far as its first bytes tell.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _segments(size: int) -> int:
    """How many segments a file of this size has; an empty one has one."""
    return max(1, -(-size // SEGMENT))


def _nonce(number: int, count: int) -> bytes:
    return number.to_bytes(11, "big") + bytes([number == count - 1])
