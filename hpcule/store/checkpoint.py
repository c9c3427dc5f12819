"""Checkpoints of a run: one file a rank with all parts that it has, valid only once COMMIT lists them all.

The last two are kept. Parts are found by their names, so that ranks of another number can go on.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from hpcule.config.errors import StoreError
from hpcule.store.files import private_directory, to_json, writing
from hpcule.store.vault import Vault
from hpcule.world.progress import note_saved

PartState = dict[str, Any]
"""What a part of a checkpoint keeps, by name: tensors, numbers, texts, and lists and dicts of them."""
COMMIT = "COMMIT"
_KEPT = 2
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FILE = re.compile(r"rank-\d{5,}\.pt")
_FOLDER = re.compile(r"checkpoint-(\d{8,})")


@dataclass(frozen=True)
class CheckpointPart:
    """Where a part lies in the file of a rank, and the SHA-256 of its bytes."""

    file: str
    start: int
    bytes: int
    sha256: str


class PartDocument(TypedDict):
    """The fields of a `CheckpointPart`."""

    file: str
    start: int
    bytes: int
    sha256: str


class CommitDocument(TypedDict):
    """COMMIT: the run that a checkpoint is of, the sizes of its files, and its parts by name."""

    run_key: str
    files: dict[str, int]
    parts: dict[str, PartDocument]


PlainWritten = tuple[str, int, dict[str, tuple[Any, ...]]]


@dataclass(frozen=True)
class WrittenFile:
    """A rank's file of a checkpoint: its name, its size on the disk, and its parts by name."""

    file: str
    bytes: int
    parts: Mapping[str, CheckpointPart]

    def plain(self) -> PlainWritten:
        """Plain values, which ranks may send each other."""
        return self.file, self.bytes, {name: astuple(part) for name, part in self.parts.items()}

    @classmethod
    def of(cls, plain: PlainWritten) -> WrittenFile:
        """The inverse of `plain`."""
        file, size, parts = plain
        return cls(file, size, {name: CheckpointPart(*part) for name, part in parts.items()})


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint of a store: the step it was taken at and its parts."""

    vault: Vault
    step: int
    parts: Mapping[str, CheckpointPart]
    at_hand: Mapping[str, bytes] = field(default_factory=dict)
    """Bytes of parts that need not be read."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parts."""
        return tuple(self.parts)

    def load(self, name: str) -> PartState:
        """Return the state of a part, on the CPU.

        Raises:
            StoreError: the part is damaged.
        """
        assert name in self.names, (name, self.names)
        folder = self.vault.path / _name(self.step)
        try:
            data = self.at_hand[name] if name in self.at_hand else self.read(name)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except StoreError:
            raise
        except Exception as error:  # torch raises whatever its zip reader and its unpickler do
            raise _damaged(folder / self.parts[name].file) from error
        if not isinstance(state, dict):
            raise StoreError(f"checkpoint {folder} does not hold a state: remove this folder")
        return state

    def read(self, name: str) -> bytes:
        """The bytes of a part, as they were written.

        Raises:
            StoreError: they are not.
        """
        part = self.parts[name]
        file = f"{_name(self.step)}/{part.file}"
        try:
            data = self.vault.read(file, part.start, part.bytes)
        except (OSError, OverflowError, TypeError, ValueError) as error:
            raise _damaged(self.vault.path / file) from error
        # torch does not compare the checksums of its own format.
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise _damaged(self.vault.path / file)
        return data


def make_folder(vault: Vault, step: int) -> None:
    """Make the folder of the checkpoint at `step`; one process calls it before any of them saves.

    Raises:
        StoreError: it cannot be made.
    """
    folder = vault.path / _name(step)
    private_directory(folder)
    with writing(folder / COMMIT):
        (folder / COMMIT).unlink(missing_ok=True)


def save(vault: Vault, step: int, rank: int, states: Mapping[str, Mapping[str, object]]) -> WrittenFile:
    """Write a rank's parts of the checkpoint at `step`, for `commit` to make them count after all ranks have saved.

    Args:
        vault: the store.
        step: where the run is.
        rank: whose parts they are.
        states: by name: letters, digits, "-" and "_", the same for every number of workers (a shard, or what is
            shared). Tensors, numbers, strings, and lists and dicts of them: what `torch.load(weights_only=True)` takes.

    Raises:
        StoreError: it cannot be written.
    """
    file, buffer = f"rank-{rank:05d}.pt", io.BytesIO()
    parts: dict[str, CheckpointPart] = {}
    if not states:
        return WrittenFile(file, 0, parts)
    for name, state in states.items():
        assert _NAME.fullmatch(name), name
        start = buffer.tell()
        torch.save(dict(state), buffer)
        digest = hashlib.sha256(buffer.getbuffer()[start:]).hexdigest()
        parts[name] = CheckpointPart(file, start, buffer.tell() - start, digest)
    written = vault.write(f"{_name(step)}/{file}", buffer.getbuffer(), listed=False)
    return WrittenFile(file, len(written), parts)


def commit(vault: Vault, step: int, run_key: str, written: Sequence[WrittenFile]) -> None:
    """Declare the checkpoint at `step` with these files whole, then remove what it makes superfluous.

    One process calls it. The last two committed checkpoints stay; older ones, and older ones without COMMIT, go.

    Raises:
        StoreError: it cannot be written.
    """
    parts = {name: part for own in written for name, part in own.parts.items()}
    document: CommitDocument = {
        "run_key": run_key,
        "files": {own.file: own.bytes for own in written if own.parts},
        "parts": {name: cast("PartDocument", asdict(part)) for name, part in sorted(parts.items())},
    }
    vault.write(f"{_name(step)}/{COMMIT}", to_json(document))
    note_saved()
    kept = [checkpoint.step for checkpoint in _committed(vault, run_key) if checkpoint.step <= step][:_KEPT]
    for other, path in _folders(vault.path):
        if other < step and other not in kept:
            _remove(path)


def latest(vault: Vault, run_key: str) -> Checkpoint | None:
    """Return the last checkpoint of this run that is whole, or None."""
    return next(_committed(vault, run_key), None)


def remove_all(store: Path) -> None:
    """Remove all checkpoints; they are of no use once a run has ended."""
    for _, path in _folders(store):
        _remove(path)


def _name(step: int) -> str:
    return f"run/checkpoint-{step:08d}"


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"checkpoint {path} is damaged: remove the folder {path.parent.name}, then run again with --resume"
    )


def _folders(store: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, the latest first."""
    found = [(match, path) for path in (store / "run").glob("*") if (match := _FOLDER.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def _committed(vault: Vault, run_key: str) -> Iterator[Checkpoint]:
    """The whole checkpoints of this run, the latest first."""
    for step, folder in _folders(vault.path):
        try:
            document = cast(CommitDocument, vault.read_json(f"{_name(step)}/{COMMIT}"))
            parts = {name: CheckpointPart(**facts) for name, facts in document["parts"].items()}
            files = document["files"]
            whole = (
                document["run_key"] == run_key
                and all(_FILE.fullmatch(file) and (folder / file).stat().st_size == files[file] for file in files)
                and all(_NAME.fullmatch(name) and part.file in files for name, part in parts.items())
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        if whole:
            yield Checkpoint(vault, step, parts)


def _remove(folder: Path) -> None:
    with writing(folder):
        shutil.rmtree(folder)
