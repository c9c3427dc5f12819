"""Whether a store is its owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hpcule.store.vault import MANIFEST

_OTHERS = 0o077
"""Permission bits of group and world; the group's hold the mask of an access control list where a folder has one."""


def exposed(store: Path) -> str | None:
    """Say how others get into a store and what helps, or return None.

    Nobody passes a closed folder, whatever the modes of what lies in it: this reads one mode, however large the
    store is. A folder that holds no store is none of our business.
    """
    if not (store / MANIFEST).exists():
        return None
    mode = stat.S_IMODE(store.stat().st_mode)
    return f"others may read {store} (mode {mode:04o}): chmod -R go= {store}" if mode & _OTHERS else None


def exposed_paths(store: Path) -> list[Path]:
    """The store's folder and everything in it that others may read, write or enter, in order."""
    found = [store] if store.stat().st_mode & _OTHERS else []
    return found + sorted(_exposed_below(store))


def _exposed_below(folder: Path) -> Iterator[Path]:
    # The file system is asked once for each file: a store may have very many.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            if entry.stat(follow_symlinks=False).st_mode & _OTHERS:
                yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _exposed_below(Path(entry.path))
