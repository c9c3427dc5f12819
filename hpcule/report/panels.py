"""Measures on networks as panels of a store's protection report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import UsageError
from hpcule.report import certify_report, distance_report, recovery_report
from hpcule.store.files import read_json, sha256_file
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST

Measured = Mapping[str, Any]
"""The results.json of `hpcule certify`, `distance` or `recover`."""


@dataclass(frozen=True)
class Panel:
    """A section of the report: a template and what it shows, with `title`, `warnings` and `claims`."""

    template: str
    context: dict[str, Any]


CONTEXTS: dict[str, Callable[[Measured], dict[str, Any]]] = {
    "certify": certify_report.context,
    "distance": distance_report.context,
    "recover": recovery_report.context,
}
"""By the kind of the results, which is the verb."""


def panels(measures: Sequence[Measured]) -> list[Panel]:
    """What the measures are shown as, in the order of `CONTEXTS`."""
    return [
        Panel(f"{kind}_panel.html.j2", context(results))
        for kind, context in CONTEXTS.items()
        for results in measures
        if results["kind"] == kind
    ]


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
    if results.get("kind") not in CONTEXTS:
        raise UsageError(f"--with {folder}: holds results of kind {results.get('kind')!r}; {valid}")
    if results.get("store") != store:
        raise UsageError(f"--with {folder}: was measured on another store, or on this one before it changed")
    return results
