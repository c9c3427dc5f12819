"""What a store keeps about every copy that was exported from it: which file is which, and the hash of each.

Each export has files of its own below run/exports, named after the digest of its hash list, so that copies for several
recipients, under several policies, can all be checked and reverted. run/export.csv and run/export.sha256 are those of
the last export.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hpcule.config.errors import StoreError
from hpcule.publish.collection import Record
from hpcule.publish.excluded import NOTE
from hpcule.publish.hashes import FileHash, hash_list, read_hash_list
from hpcule.store.files import private_directory, to_json, write_atomically, writing
from hpcule.store.run_files import EXPORTS, FACTS, HASHES, RECORDS

EXPORTED = "run/export.sha256"
"""The hash list of the last export."""
RECORD = "run/export.csv"
"""What became of every file of the last export, in the order of the ids; absent if it was no export of files."""
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What makes a spreadsheet run the text of a cell."""
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})|\\\\")


@dataclass(frozen=True)
class ExportRecord:
    """The files that a store keeps about an export.

    Attributes:
        hashes: the hash list of the copy.
        records: what became of every file; it is absent for arrays.
    """

    hashes: Path
    records: Path

    def altered(self, found: Sequence[FileHash]) -> list[str]:
        """Names of files that are missing from a copy, added to it, or changed."""
        exported, present = read_hash_list(self.hashes.read_bytes()), {entry.file: entry.sha256 for entry in found}
        return sorted(file for file in {*exported, *present} if exported.get(file) != present.get(file))


def keep_records(store: Path, hashes: Sequence[FileHash], records: Sequence[Record], facts: Mapping[str, Any]) -> str:
    """Note an export in the store, next to those before it, and return the digest of its hash list.

    Args:
        store: the folder.
        hashes: of all files of the copy.
        records: of its files; empty for arrays.
        facts: what else is to be kept, as JSON.

    Raises:
        StoreError: the store cannot be written.
    """
    _keep_earlier(store)
    listed, rows = hash_list(list(hashes)), table(records) if records else None
    digest = sha256(listed).hexdigest()
    _write(store, digest, listed, rows, facts)
    write_atomically(store / EXPORTED, listed)
    if rows is not None:
        write_atomically(store / RECORD, rows)
    else:
        with writing(store / RECORD):
            (store / RECORD).unlink(missing_ok=True)
    return digest


def find_export(store: Path, found: Sequence[FileHash]) -> ExportRecord | None:
    """The export that a copy is of: that with the most files of these names and hashes, the last one of several.

    Args:
        store: the folder.
        found: the files of the copy.

    Returns:
        None if the store has no record of any export.
    """
    present = {entry.file: entry.sha256 for entry in found}

    def resemblance(export: ExportRecord) -> tuple[int, int, float]:
        exported = read_hash_list(export.hashes.read_bytes())
        names = exported.keys() & present.keys()
        same = sum(exported[name] == present[name] for name in names)
        return same, len(names), export.hashes.stat().st_mtime

    return max(_exports(store), key=resemblance, default=None)


def last_export(store: Path) -> ExportRecord:
    """The last export; its files may be absent."""
    return ExportRecord(store / EXPORTED, store / RECORD)


def table(records: Sequence[Record]) -> bytes:
    """The records as CSV, which a spreadsheet or a terminal can show without running anything in it."""
    columns = list(dict.fromkeys(name for record in records for name in record.numbers))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["split", "file", "published", "protected", "note", *columns])
    for record in records:
        numbers = [record.numbers.get(name, "") for name in columns]
        protected = "yes" if record.protected else "no"
        names = [to_cell(name) for name in (record.split, record.file, record.published)]
        writer.writerow([*names, protected, to_cell(record.note), *numbers])
    return text.getvalue().encode()


def read_records(path: Path) -> list[Record]:
    """What became of each file of an export, without its numbers.

    Raises:
        StoreError: there is no such record, or it is damaged.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        return [
            Record(
                from_cell(row["split"]),
                from_cell(row["file"]),
                from_cell(row["published"]),
                row["protected"] == "yes",
                from_cell(row["note"]),
                {},
                excluded=from_cell(row["note"]).endswith(NOTE),
            )
            for row in rows
        ]
    except FileNotFoundError:
        message = "is no record of an export as a folder, so nobody knows which file is which sample: export again"
        raise StoreError(f"{path} is absent: there {message}") from None
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:  # a short row has None in it
        raise StoreError(f"{path} cannot be read ({error}): export again") from None


def to_cell(name: str) -> str:
    r"""A name as a cell of a table: UTF-8 that prints, on one line, and no formula.

    What does not print, and bytes that are not UTF-8, become \x and two digits a byte; so does a semicolon, which
    separates cells where a comma is the decimal sign. A cell that a spreadsheet would run begins with an apostrophe.
    """
    text = "".join(map(_shown, name))
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def from_cell(cell: str) -> str:
    """The name that `to_cell` made a cell of."""
    text = cell.removeprefix("'").encode()
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", text))


def _shown(character: str) -> str:
    if character == "\\":
        return r"\\"
    if character.isprintable() and character != ";":
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _exports(store: Path) -> list[ExportRecord]:
    """All that the store knows of; where earlier versions wrote the only one, the last."""
    kept = [ExportRecord(path, path.with_suffix(RECORDS)) for path in sorted((store / EXPORTS).glob(f"*{HASHES}"))]
    last = last_export(store)
    return kept or ([last] if last.hashes.exists() else [])


def _keep_earlier(store: Path) -> None:
    """Keep the last export of an earlier version of hpcule, which had one place for all."""
    last = last_export(store)
    if not last.hashes.exists():
        return
    listed = last.hashes.read_bytes()
    digest = sha256(listed).hexdigest()
    if not (store / EXPORTS / f"{digest}{HASHES}").exists():
        _write(store, digest, listed, last.records.read_bytes() if last.records.exists() else None, {})


def _write(store: Path, digest: str, listed: bytes, rows: bytes | None, facts: Mapping[str, Any]) -> None:
    folder = store / EXPORTS
    private_directory(store / "run")
    private_directory(folder)
    if rows is not None:
        write_atomically(folder / f"{digest}{RECORDS}", rows)
    kept = {**facts, "records_sha256": sha256(rows).hexdigest() if rows is not None else None}
    write_atomically(folder / f"{digest}{FACTS}", to_json(kept))
    # Comes last: a list means that the others are there.
    write_atomically(folder / f"{digest}{HASHES}", listed)
