"""Copies of the package that jobs run, so that what is edited after a submission changes nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hpcule.config.errors import StoreError
from hpcule.config.version import __version__
from hpcule.store.files import private_directory, sha256_file

PACKAGE = Path(__file__).parents[1]
_NAME = re.compile(re.escape(__version__) + r"(?:-(\d+))?")


def code_copy(folder: Path, *, refresh: bool) -> Path:
    """The copy that jobs submitted now run: the last one of this version, or the one to be made.

    Args:
        folder: of the copies; `folder/VERSION` holds the first of a version, `folder/VERSION-2` the second.
        refresh: another copy than those that are there. Jobs in the queue keep theirs.
    """
    numbers = [int(found[1] or 1) for path in folder.glob("*") if (found := _NAME.fullmatch(path.name))]
    number = max(numbers, default=0 if refresh else 1) + refresh
    return folder / (__version__ if number == 1 else f"{__version__}-{number}")


def make_copy(copy: Path) -> None:
    """Copy the package, unless the copy is there.

    Raises:
        StoreError: it cannot be written.
    """
    target = copy / PACKAGE.name
    if target.exists():
        return
    private_directory(copy)
    partial = copy / f".{PACKAGE.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(PACKAGE, partial, ignore=shutil.ignore_patterns("__pycache__"))
        partial.rename(target)
    except OSError as error:
        raise StoreError(f"cannot copy the package to {target}: {error.strerror or error}") from None


def is_current(copy: Path) -> bool:
    """Whether the copy is the package as it is now."""
    return _contents(copy / PACKAGE.name) == _contents(PACKAGE)


def _contents(package: Path) -> dict[str, str]:
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(package)): sha256_file(path) for path in files}
