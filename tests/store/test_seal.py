"""Sealed files: read back at any place, and refused after any change."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hpcule.config.errors import StoreError
from hpcule.store.seal import HEADER, SEGMENT, TAG, Key, SealedFile, is_sealed
from hpcule.store.vault import Vault

KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))
NAME = "shards/x.h5"
SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 5]


@pytest.fixture
def sealed(tmp_path):
    """Write so many random bytes; returns them and the file."""

    def write(size, name=NAME):
        data = np.random.default_rng(size).bytes(size)
        (tmp_path / "shards").mkdir(exist_ok=True)
        Vault(tmp_path, KEY).write(name, data)
        return data, tmp_path / name

    return write


def by_hand(sealed: bytes) -> bytes:
    """Decrypted as the module's first lines say, in the most obvious way."""
    assert sealed[:16] == b"hpcule sealed 1\n"
    derived = HKDF(SHA256(), 48, sealed[16:48], b"hpcule sealed file 1").derive(KEY.secret)
    assert sealed[48:64] == derived[32:]
    body, cipher, plain = sealed[64:], AESGCM(derived[:32]), b""
    parts = [body[start : start + 65552] for start in range(0, len(body), 65552)]
    for number, part in enumerate(parts):
        last = b"\1" if number == len(parts) - 1 else b"\0"
        plain += cipher.decrypt(number.to_bytes(11, "big") + last, part, NAME.encode())
    return plain


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_is_read_back(sealed, tmp_path, size):
    data, path = sealed(size)
    assert Vault(tmp_path, KEY).read(NAME) == data
    assert by_hand(path.read_bytes()) == data
    assert path.stat().st_mode & 0o777 == 0o600


def test_any_place_can_be_read(sealed):
    data, path = sealed(SIZES[-1])
    with SealedFile(path, NAME, KEY) as file:
        for start, count in np.random.default_rng(1).integers(0, len(data) + 9, (200, 2)).tolist():
            assert file.seek(start) == start
            assert file.read(count) == data[start : start + count]
        assert file.seek(-3, os.SEEK_END) == len(data) - 3
        assert file.read() == data[-3:]
        assert file.read(1) == b""


def test_the_same_bytes_are_sealed_differently_each_time(sealed):
    seen = {sealed(100)[1].read_bytes()[16:] for _ in range(20)}
    assert len({data[:32] for data in seen}) == len({data[48:] for data in seen}) == 20


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


SEALED_SEGMENT = SEGMENT + TAG
CHANGES = {
    "salt": lambda data: flipped(data, 20),
    "mark": lambda data: flipped(data, 50),
    "first byte": lambda data: flipped(data, HEADER),
    "middle segment": lambda data: flipped(data, HEADER + SEALED_SEGMENT + 9),
    "last tag": lambda data: flipped(data, len(data) - 1),
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"x",
    "a segment less": lambda data: data[: HEADER + 3 * SEALED_SEGMENT],
    "one segment left": lambda data: data[: HEADER + SEALED_SEGMENT],
    "header alone": lambda data: data[:HEADER],
    "half a tag": lambda data: data[: HEADER + 8],
    "half a header": lambda data: data[: HEADER // 2],
    "nothing": lambda data: b"",
    "segments swapped": lambda data: (
        data[:HEADER]
        + data[HEADER + SEALED_SEGMENT : HEADER + 2 * SEALED_SEGMENT]
        + data[HEADER : HEADER + SEALED_SEGMENT]
        + data[HEADER + 2 * SEALED_SEGMENT :]
    ),
    "last segment twice": lambda data: data + data[HEADER + 3 * SEALED_SEGMENT :],
    "not sealed": lambda data: b"plain",
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_refused(sealed, tmp_path, change):
    _, path = sealed(SIZES[-1])
    path.write_bytes(CHANGES[change](path.read_bytes()))
    # Another salt or mark is another key's.
    with pytest.raises((ValueError, StoreError)):
        Vault(tmp_path, KEY).read(NAME)


def test_files_cannot_take_each_others_place(sealed, tmp_path):
    sealed(100)
    _, other = sealed(100, "shards/y.h5")
    other.replace(tmp_path / NAME)
    with pytest.raises(ValueError, match="another file's contents"):
        Vault(tmp_path, KEY).read(NAME)


def test_wrong_keys(sealed, tmp_path):
    data, path = sealed(100)
    with pytest.raises(StoreError, match="another key than the one given"):
        Vault(tmp_path, OTHER).read(NAME)
    with pytest.raises(StoreError, match="is encrypted: name its key with --key"):
        Vault(tmp_path).read(NAME)
    Vault(tmp_path).write("plain", data)
    assert is_sealed(path)
    assert not is_sealed(tmp_path / "plain")
    assert Vault(tmp_path).read("plain") == data
    with pytest.raises(ValueError, match="not an encrypted file"):
        Vault(tmp_path, KEY).read("plain")
    with pytest.raises(FileNotFoundError):
        Vault(tmp_path, KEY).read("absent")


def test_a_key_is_in_no_message():
    assert "secret" not in repr(KEY)
    assert str(KEY.secret) not in f"{KEY} {KEY!r}"
