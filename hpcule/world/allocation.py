"""How the C library hands out memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next tensors; nothing happens without the GNU C library.

    That library takes every large block from the system and gives it back, and the system clears each page when it is
    used again. Layers that write megabytes an image spend a third of their time so. In return, a process keeps the most
    that it ever needed; see mallopt(3).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, LARGEST)
