"""Values that ranks send each other, as bytes from which nothing but plain values and arrays can come.

The bytes are a pickle, which can name any function to call. They arrive over sockets, so the reader knows a handful of
names and refuses all others.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_PROTOCOL = 4
"""The last one that writes arrays with the names below alone."""
_NAMES = {
    ("builtins", name): kind
    for name, kind in {"set": set, "frozenset": frozenset, "bytearray": bytearray, "complex": complex}.items()
} | {("numpy", "ndarray"): np.ndarray}
_KINDS = "biufcSU"
"""First letters of the names of numpy's types of numbers and texts."""
_OF_NUMPY = {"_reconstruct", "scalar"}


def dumps(value: object) -> bytes:
    """Bytes of a value: numbers, strings, bytes, None, arrays of numpy, and lists, tuples, sets and dicts of them."""
    return pickle.dumps(value, _PROTOCOL)


def loads(data: bytes, package: str = "") -> Any:
    """The value of bytes from `dumps`.

    Args:
        data: the bytes.
        package: whose modules hold other classes and functions that may be named, next to paths; "": nothing else.

    Raises:
        RuntimeError: the bytes hold anything else.
    """
    try:
        return _Reader(io.BytesIO(data), package).load()
    except Exception as error:  # foreign bytes come out as whatever the unpickler raises
        raise RuntimeError(f"another rank sent what is no plain value ({error})") from None


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, package: str) -> None:
        super().__init__(file)
        self._package = package

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the bytes stands for."""
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if (module, name) == ("numpy", "dtype"):
            return _plain_type
        # numpy 2 has moved the two functions that make arrays and scalars.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _OF_NUMPY:
            return super().find_class(module, name)
        own = module.startswith(f"{self._package}.") and "." not in name
        if self._package and (own or (module, name) == ("pathlib", "PosixPath")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is neither a plain value nor an array")


def _plain_type(name: str, *flags: bool) -> np.dtype[Any]:
    """A type of numbers or texts: of dates, what follows in the bytes can crash numpy."""
    if name[:1] not in _KINDS:
        raise pickle.UnpicklingError(f"arrays of type {name[:10]} are neither numbers nor texts")
    return np.dtype(name, *flags)
