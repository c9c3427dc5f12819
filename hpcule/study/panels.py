"""Measures on networks as panels of a store's protection report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import UsageError
from hpcule.store.files import read_json, sha256_file
from hpcule.store.manifest import MANIFEST
from hpcule.store.read import StoreReader
from hpcule.study import certify_report, distance_report, recovery_report

Measured = Mapping[str, Any]
"""The results.json of `hpcule certify`, `distance` or `recover`."""


@dataclass(frozen=True)
class Panel:
    """A section of the report."""

    title: str
    template: str
    context: dict[str, Any]


KINDS: dict[str, tuple[str, str, Callable[[Measured], dict[str, Any]]]] = {
    "certify": ("Certificate", "certify_panel.html.j2", certify_report.context),
    "distance": ("Unlearnable Distance", "distance_panel.html.j2", distance_report.context),
    "recover": ("Recovery attack", "recover_panel.html.j2", recovery_report.context),
}


def panels(measures: Sequence[Measured]) -> list[Panel]:
    """What the measures are shown as, in the order of `KINDS`."""
    found = []
    for kind, (title, template, context) in KINDS.items():
        found += [Panel(title, template, context(results)) for results in measures if results["kind"] == kind]
    return found


def read_measures(folders: Sequence[Path], store: StoreReader) -> list[Measured]:
    """The results in the folders that measures of this store have written.

    Raises:
        UsageError: a folder holds none, or they are of another store.
    """
    return [_read(folder, sha256_file(store.path / MANIFEST)) for folder in folders]


def _read(folder: Path, store: str) -> Measured:
    path, valid = folder / "results.json", "name an output folder of hpcule certify, distance or recover"
    try:
        results = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--with {folder}: {path} cannot be read ({error}); {valid}") from None
    if results.get("kind") not in KINDS:
        raise UsageError(f"--with {folder}: holds results of kind {results.get('kind')!r}; {valid}")
    if results.get("store") != store:
        raise UsageError(f"--with {folder}: was measured on another store, or on this one before it changed")
    return results
