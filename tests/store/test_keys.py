"""Keys in files and in a keyring."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.keys import make_key, read_key


class FolderKeyring(KeyringBackend):
    """A keyring in a folder, as a plug-in of the library."""

    priority = 1

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def get_password(self, service, username):
        path = self.folder / f"{service}-{username}"
        return path.read_text() if path.exists() else None

    def set_password(self, service, username, password):
        (self.folder / f"{service}-{username}").write_text(password)


@pytest.fixture
def folder_keyring(tmp_path):
    before = keyring.get_keyring()
    keyring.set_keyring(FolderKeyring(tmp_path))
    yield
    keyring.set_keyring(before)


@pytest.fixture
def no_keyring():
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    yield
    keyring.set_keyring(before)


def test_a_file(tmp_path):
    place = tmp_path / "owner.key"
    make_key(str(place))
    assert place.stat().st_mode & 0o777 == 0o600
    key = read_key(str(place))
    assert place.read_text() == f"{b64encode(key.secret).decode()}\n"
    make_key(str(tmp_path / "other.key"))
    assert read_key(str(tmp_path / "other.key")) != key


def test_a_keyring(folder_keyring, tmp_path):
    make_key("keyring:my store")
    assert read_key("keyring:my store") == read_key("keyring:my store")
    assert [path.name for path in tmp_path.iterdir()] == ["hpcule-my store"]
    with pytest.raises(UsageError, match="is there already"):
        make_key("keyring:my store")
    with pytest.raises(UsageError, match=r"there is no keyring:absent: make one with `hpcule key keyring:absent`"):
        read_key("keyring:absent")


def test_no_keyring(no_keyring):
    for use in (make_key, read_key):
        with pytest.raises(UsageError, match=r"the keyring cannot be used here .*: keep the key in a file"):
            use("keyring:x")


def test_a_key_is_never_overwritten(tmp_path):
    make_key(str(tmp_path / "key"))
    before = (tmp_path / "key").read_text()
    with pytest.raises(UsageError, match="stores may be encrypted with it"):
        make_key(str(tmp_path / "key"))
    assert (tmp_path / "key").read_text() == before
    with pytest.raises(StoreError, match="cannot write key in "):
        make_key(str(tmp_path / "absent" / "key"))


@pytest.mark.parametrize("text", ["", "secret", "A" * 42, b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode()])
def test_what_is_no_key(tmp_path, text):
    place = tmp_path / "key"
    place.write_text(text)
    place.chmod(0o600)
    with pytest.raises(UsageError, match="holds no key, which is 32 bytes in base64"):
        read_key(str(place))


def test_what_is_no_file(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_key(str(place))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    make_key(str(tmp_path / "key"))
    (tmp_path / "key").chmod(mode)
    with pytest.raises(StoreError, match=f"others may read the key .* \\(mode {mode:04o}\\): chmod go= "):
        read_key(str(tmp_path / "key"))
