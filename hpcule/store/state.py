"""The state of a training as bytes that prove to be whole."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import torch

_DIGEST = hashlib.sha256().digest_size


def pack_state(state: Mapping[str, object]) -> bytes:
    """Return the bytes of tensors, numbers, texts, and lists and dicts of them, after their SHA-256."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    # torch does not compare the checksums of its own format.
    return hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer()


def unpack_state(data: bytes) -> dict[str, object]:
    """Return what `pack_state` was given, on the CPU.

    Raises:
        ValueError: the bytes are damaged.
    """
    content = memoryview(data)[_DIGEST:]
    if hashlib.sha256(content).digest() != data[:_DIGEST]:
        raise ValueError("SHA-256 differs")
    state: dict[str, object] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
