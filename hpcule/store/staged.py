"""Copies that appear whole or not at all: made in a private folder next to their place, and then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.files import sync_folder

_SUFFIX = ".partial"
_MOST_OF_A_NAME = 40
"""Characters of a copy's name that its temporary folder repeats: a name may have 255 bytes."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def staged(out: Path, *, private: bool) -> Iterator[Path]:
    """Yield the path at which a file or a folder is to be made; when the block ends, that becomes `out`.

    Until then it lies in a folder of mode 0700, whose name nobody can guess. A killed process leaves this folder
    behind, `.NAME.RANDOM.partial`, which `left_behind` finds. Files are made by `create`.

    Args:
        out: absent, or an empty folder; its parents are created.
        private: whether only the owner may read the copy; otherwise its modes are those of any new file.

    Raises:
        StoreError: something else has taken the name `out` in the meantime.
        OSError: the copy cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=_prefix(out), suffix=_SUFFIX, dir=out.parent))
    itself = stage.lstat()
    made = stage / "copy"
    try:
        yield made
        _set_modes(made, 0o700 if private else _usual_mode(stage))
        os.sync()  # one call for what may be a million files
        _place(made, out)
        sync_folder(out.parent)
    finally:
        # Whoever may rename folders here may have put another one in its place.
        if stage.exists() and os.path.samestat(itself, stage.lstat()):
            shutil.rmtree(stage)


def left_behind(out: Path) -> str | None:
    """What to say of the folders in which copies for `out` were not finished; None where there are none.

    They are named, not removed: another process may be writing there.
    """
    folder, prefix = out.absolute().parent, _prefix(out)
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
    found = sorted(name for name in names if name.startswith(prefix) and name.endswith(_SUFFIX))
    if not found:
        return None
    which = ", ".join(str(folder / name) for name in found[:3]) + (", ..." if len(found) > 3 else "")
    return f"an earlier run that was killed, or one that still writes, has left a part of {out.name}: remove {which}"


def create(path: Path) -> BinaryIO:
    """Create a file that only its owner may read, with the folders that it lies in.

    Raises:
        FileExistsError: something has this name, a link that leads nowhere included.
        OSError: it cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def require_apart(out: Path, places: Mapping[str, Path | None]) -> None:
    """Check that a copy will not be written into a folder that must stay as it is, wherever links lead.

    Args:
        out: the copy.
        places: folders, by what they are called in the message ("the store"); None is passed over.

    Raises:
        UsageError: `out` lies in one of them.
    """
    above = [path for path in out.resolve().parents if path.exists()]
    for name, place in places.items():
        if place is not None and place.exists() and any(path.samefile(place) for path in above):
            raise UsageError(f"{out} lies in {name} ({place}): name a folder outside of it")


def _prefix(out: Path) -> str:
    """The beginning of the names of temporary folders for a copy."""
    return f".{out.name[:_MOST_OF_A_NAME]}."


def _usual_mode(stage: Path) -> int:
    """The mode of a new folder here, as the process's mask and the folder above make it."""
    probe = stage / "probe"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    return mode


def _set_modes(made: Path, mode: int) -> None:
    """Give a folder and all below it this mode; files without the right to execute."""
    if not made.is_dir():
        made.chmod(mode & 0o666)
        return
    for place, _, names in os.walk(made):
        Path(place).chmod(mode)
        for name in names:
            Path(place, name).chmod(mode & 0o666)


def _place(made: Path, out: Path) -> None:
    """Give the copy its name, unless something else has it."""
    taken = StoreError(f"{out} was created by somebody else in the meantime: name another file or folder")
    if made.is_dir():
        # Replaces an empty folder, never a link or anything else.
        try:
            made.rename(out)
        except (FileExistsError, NotADirectoryError):
            raise taken from None
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise taken from None
            raise
        return
    try:
        out.hardlink_to(made)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(out):
            raise taken from None
        made.rename(out)
