"""Where an owner's key is kept: in a file, or in the operating system's keyring."""

from __future__ import annotations

import binascii
import os
import stat
from base64 import b64decode, b64encode
from pathlib import Path
from types import ModuleType

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.files import storage_error
from hpcule.store.seal import KEY_BYTES, Key
from hpcule.store.vault import Vault

KEYRING = "keyring:"
_SERVICE = "hpcule"


def make_key(place: str) -> None:
    """Draw a key from the operating system and put it where there is none yet.

    Args:
        place: a file, or `keyring:NAME`.

    Raises:
        UsageError: a key is there, or there is no keyring.
        StoreError: the file cannot be written.
    """
    text = b64encode(os.urandom(KEY_BYTES)).decode()
    if place.startswith(KEYRING):
        keyring, name = _keyring(), place.removeprefix(KEYRING)
        if _from_keyring(keyring, name) is not None:
            raise UsageError(f"{place} is there already, and stores may be encrypted with it: choose another name")
        keyring.set_password(_SERVICE, name, text)
        return
    path = Path(place)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        raise UsageError(f"{path} is there already, and stores may be encrypted with it: choose another name") from None
    except OSError as error:
        raise storage_error(error, path, len(text), "try again") from error


def read_key(place: str) -> Key:
    """The key in a file that nobody else may read, or in the keyring.

    Raises:
        UsageError: there is none, or it is no key.
        StoreError: others may read the file.
    """
    if place.startswith(KEYRING):
        text = _from_keyring(_keyring(), place.removeprefix(KEYRING))
        if text is None:
            raise UsageError(f"there is no {place}: make one with `hpcule key {place}`")
        return _decoded(text, place)
    path = Path(place)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1000).decode("ascii", "replace")
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror or error})"
        raise UsageError(f"{reason}: name the file of the key, or make one with `hpcule key {path}`") from None
    if mode & 0o077:
        raise StoreError(f"others may read the key {path} (mode {mode:04o}): chmod go= {path}")
    return _decoded(text, place)


def vault_of(path: Path, key: str | Path | None) -> Vault:
    """A store's folder with the key that is kept in a file or in `keyring:NAME`.

    Raises:
        UsageError: the key cannot be read.
        StoreError: others may read its file.
    """
    return Vault(path, read_key(str(key)) if key is not None else None)


def _decoded(text: str, place: str) -> Key:
    try:
        secret = b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise UsageError(f"{place} holds no key, which is {KEY_BYTES} bytes in base64: `hpcule key` makes one")
    return Key(secret)


def _keyring() -> ModuleType:
    try:
        import keyring
    except ImportError:
        raise UsageError('the keyring needs a package: pip install "hpcule[encryption]"') from None
    return keyring


def _from_keyring(keyring: ModuleType, name: str) -> str | None:
    """What the keyring has under a name, or None."""
    try:
        found: str | None = keyring.get_password(_SERVICE, name)
    except keyring.errors.KeyringError as error:
        raise UsageError(f"the keyring cannot be used here ({error}): keep the key in a file") from None
    return found
