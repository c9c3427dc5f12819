"""The files in STORE/run, and what is wrong with them.

Settings are compared with the manifest, and the records of every export with each other. Logs, the lock, checkpoints
and days by which dates were shifted are not checked, as nothing says what was in them; nor are notes about finished
shards, which are checked themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hpcule.config.errors import StoreError
from hpcule.config.plain_yaml import YamlError, parse_yaml
from hpcule.config.tree import Tree, flat
from hpcule.store.files import read_json, sha256_file
from hpcule.store.manifest import Manifest
from hpcule.store.vault import Vault

SETTINGS = "run/config.yaml"
EXPORTS = "run/exports"
HASHES, RECORDS, FACTS = ".sha256", ".csv", ".json"
"""Endings of the files of an export, which are named after the SHA-256 of its hash list."""
_UNCHECKED = re.compile(
    r"log-\d{5,}\.jsonl|lock|checkpoint-\d{8,}|shard-\d{5,}\.json|shared\.json|export\.csv|export\.sha256"
    r"|date-shifts\.json"
)
_EXPORT = re.compile(r"([0-9a-f]{64})\.(?:sha256|csv|json)")
_OF_THE_PLACE = ("world", "data")
"""Settings that are not part of the result, and so not in the manifest."""

Problem = tuple[str, str, str]
"""Kind, file and message of a damage."""


def run_problems(vault: Vault, manifest: Manifest) -> Iterator[Problem]:
    """What is wrong in run/ of a complete store."""
    folder = vault.path / "run"
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        name = f"run/{path.name}"
        if name == SETTINGS:
            yield from _settings_problems(vault, manifest)
        elif name == EXPORTS and path.is_dir():
            yield from _export_problems(path)
        elif not _UNCHECKED.fullmatch(path.name):
            yield "extra", name, "nothing of the store: move it elsewhere"
    yield from _last_export_problems(vault.path)


def _settings_problems(vault: Vault, manifest: Manifest) -> Iterator[Problem]:
    try:
        found = parse_yaml(vault.read(SETTINGS).decode())
        if not isinstance(found, dict):
            raise ValueError("no mapping")
        found = _plain(found)
    except (OSError, TypeError, ValueError, YamlError, StoreError) as error:  # TypeError: a date is no name
        yield "settings", SETTINGS, f"unreadable ({error}): the manifest holds the settings, too"
        return
    stated = flat({name: value for name, value in found.items() if name not in _OF_THE_PLACE})
    made_with = flat(_plain(manifest.config))
    for name in sorted({*stated, *made_with}):
        before, now = made_with.get(name), stated.get(name)
        # The manifest has what these came to on the machine.
        resolved = (name == "precision" and now == "auto") or name == "method.checkpoint"
        if before != now and not resolved:
            message = f"{name} is {now}, and the store was made with {before}: bytes have changed since it was written"
            yield "settings", SETTINGS, message
            return


def _export_problems(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.iterdir()):
        name, known = f"{EXPORTS}/{path.name}", _EXPORT.fullmatch(path.name)
        if known is None:
            yield "extra", name, "nothing of the store: move it elsewhere"
        elif path.suffix == HASHES and sha256_file(path) != known[1]:
            yield "export", name, "SHA-256 differs from its name: bytes have changed since it was written"
        elif path.suffix == FACTS:
            yield from _record_problems(path)
        elif not path.with_suffix(FACTS).exists():
            yield "export", name, f"{path.with_suffix(FACTS).name} is missing: restore it from a copy"


def _record_problems(facts: Path) -> Iterator[Problem]:
    records = facts.with_suffix(RECORDS)
    try:
        expected = read_json(facts).get("records_sha256")
    except (OSError, ValueError) as error:
        yield "export", f"{EXPORTS}/{facts.name}", f"unreadable ({error}): restore it from a copy"
        return
    if not facts.with_suffix(HASHES).exists():
        yield "export", f"{EXPORTS}/{facts.stem}{HASHES}", "missing: restore it from a copy, or export again"
    if expected != (sha256_file(records) if records.exists() else None):
        change = "bytes have changed since it was written" if records.exists() else "missing"
        yield "export", f"{EXPORTS}/{records.name}", f"{change}: restore it from a copy, or export again"


def _last_export_problems(store: Path) -> Iterator[Problem]:
    """run/export.sha256 and run/export.csv repeat the files of one export."""
    hashes, records = store / "run" / "export.sha256", store / "run" / "export.csv"
    if not (store / EXPORTS).is_dir():  # of an earlier version
        return
    digest = sha256_file(hashes) if hashes.exists() else ""
    kept = store / EXPORTS / f"{digest}{HASHES}"
    if hashes.exists() and not kept.exists():
        yield "export", "run/export.sha256", f"its SHA-256 names no export in {EXPORTS}: bytes have changed"
    elif (
        records.exists()
        and kept.with_suffix(RECORDS).exists()
        and sha256_file(records) != sha256_file(kept.with_suffix(RECORDS))
    ):
        yield "export", "run/export.csv", f"differs from {EXPORTS}/{digest}{RECORDS}: bytes have changed"


def _plain(tree: Tree) -> Tree:
    """The tree as JSON would give it back, so that tuples are lists."""
    plain: Tree = json.loads(json.dumps(tree, default=str))
    return plain
