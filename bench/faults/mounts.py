"""File systems that are mounted for a run, where this process may."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
DISK = "16m"
"""Size of a file system that is to be filled."""


def mount(*words: str) -> None:
    """Mount something."""
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    """Unmount a folder, if anything is mounted there."""
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def may_mount(folder: Path) -> str:
    """Take a mount namespace of our own; why it cannot be had, or nothing."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS):
        return "not permitted"
    try:
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", None) or error)
    unmount(folder)
    return ""
