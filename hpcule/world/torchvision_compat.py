"""torchvision with a torch of another build: declare the operators that its binary could not register.

torchvision's wheel on the package index is linked against the CUDA build of torch. With a CPU torch its compiled part
does not load, and `import torchvision` fails with "operator torchvision::nms does not exist": the import describes
the output shapes of two operators that only the compiled part defines. Models, transforms and datasets
need nothing else of it, so declaring the two by their schemas is enough.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from importlib.machinery import PathFinder
from typing import Any

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_missing_operators() -> None:
    """Make `import torchvision` work with any build of torch; to be called before the import.

    The declared operators have no kernels: calling one raises NotImplementedError. Nothing is declared where
    torchvision's own operators load, and a second call does nothing.
    """
    _load_compiled_part()
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            # torch itself keeps the library object of this declaration for the life of the process
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def torchvision() -> Any:
    """The package, which has no types that a strict checker accepts; imported when it is first asked for."""
    declare_missing_operators()
    return importlib.import_module("torchvision")


def _load_compiled_part() -> None:
    """Register torchvision's own operators as its import would, so that only what stays missing is declared."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        return
    compiled = PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if compiled is None or compiled.origin is None:
        return
    with contextlib.suppress(OSError):  # linked against libraries that this torch does not have
        torch.ops.load_library(compiled.origin)  # type: ignore[no-untyped-call]
