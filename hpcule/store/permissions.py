"""Whether a store is its owner's alone."""

from __future__ import annotations

import stat
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
    paths = [path for path in (store, *sorted(store.rglob("*"))) if path == store or not path.is_symlink()]
    return [path for path in paths if stat.S_IMODE(path.stat().st_mode) & _OTHERS]
