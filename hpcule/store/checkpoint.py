"""Checkpoints of a run: one file a part, valid only once COMMIT lists them all; the last two are kept."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from hpcule.config.errors import StoreError
from hpcule.store.files import private_directory, sha256_file, to_json, writing
from hpcule.store.vault import Vault
from hpcule.world.progress import note_saved

PartState = dict[str, Any]
"""What a part of a checkpoint keeps, by name: tensors, numbers, texts, and lists and dicts of them."""
COMMIT = "COMMIT"
_KEPT = 2
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FOLDER = re.compile(r"checkpoint-(\d{8,})")


@dataclass(frozen=True)
class CheckpointPart:
    """A part's file as it was written."""

    bytes: int
    sha256: str


class PartDocument(TypedDict):
    """Size and SHA-256 of a part's file; see `CheckpointPart`."""

    bytes: int
    sha256: str


class CommitDocument(TypedDict):
    """COMMIT: the run that a checkpoint is of, and its parts by name."""

    run_key: str
    parts: dict[str, PartDocument]


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint of a store: the step it was taken at and its parts."""

    vault: Vault
    step: int
    parts: Mapping[str, CheckpointPart]

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
        path = self.vault.path / _part(self.step, name)
        try:
            # torch does not compare the checksums of its own format.
            if sha256_file(path) != self.parts[name].sha256:
                raise ValueError("SHA-256 differs")
            data = io.BytesIO(self.vault.read(_part(self.step, name)))
            state = torch.load(data, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its zip reader and its unpickler do
            raise StoreError(
                f"checkpoint {path} is damaged: remove the folder {path.parent.name}, then run again with --resume"
            ) from error
        if not isinstance(state, dict):
            raise StoreError(f"checkpoint {path} does not hold a state: remove the folder {path.parent.name}")
        return state


def save_part(vault: Vault, step: int, name: str, state: Mapping[str, object]) -> CheckpointPart:
    """Write one part of the checkpoint at `step`, for `commit` to make it count after all ranks have saved.

    Args:
        vault: the store.
        step: where the run is.
        name: letters, digits, "-" and "_"; the same for every number of workers (a shard, or what is shared).
        state: tensors, numbers, strings, and lists and dicts of them: what `torch.load(weights_only=True)` takes.

    Raises:
        StoreError: it cannot be written.
    """
    assert _NAME.fullmatch(name), name
    folder = vault.path / _name(step)
    private_directory(folder)
    with writing(folder / COMMIT):
        (folder / COMMIT).unlink(missing_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    written = vault.write(_part(step, name), buffer.getbuffer())
    return CheckpointPart(len(written), hashlib.sha256(written).hexdigest())


def commit(vault: Vault, step: int, run_key: str, parts: Mapping[str, CheckpointPart]) -> None:
    """Declare the checkpoint at `step` with these parts whole, then remove what it makes superfluous.

    One process calls it. The last two committed checkpoints stay; older ones, and older ones without COMMIT, go.

    Raises:
        StoreError: it cannot be written.
    """
    facts: dict[str, PartDocument] = {
        name: {"bytes": part.bytes, "sha256": part.sha256} for name, part in sorted(parts.items())
    }
    document: CommitDocument = {"run_key": run_key, "parts": facts}
    vault.write(f"{_name(step)}/{COMMIT}", to_json(document))
    note_saved()
    kept = [checkpoint.step for checkpoint in _committed(vault, run_key) if checkpoint.step <= step][:_KEPT]
    for other, path in _folders(vault.path):
        if other < step and other not in kept:
            _remove(path)


def latest(vault: Vault, run_key: str) -> Checkpoint | None:
    """Return the last checkpoint of this run that is whole, or None."""
    return next(iter(_committed(vault, run_key)), None)


def remove_all(store: Path) -> None:
    """Remove all checkpoints; they are of no use once a run has ended."""
    for _, path in _folders(store):
        _remove(path)


def _name(step: int) -> str:
    return f"run/checkpoint-{step:08d}"


def _part(step: int, name: str) -> str:
    return f"{_name(step)}/{name}.pt"


def _folders(store: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, the latest first."""
    found = [(match, path) for path in (store / "run").glob("*") if (match := _FOLDER.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def _committed(vault: Vault, run_key: str) -> list[Checkpoint]:
    """The whole checkpoints of this run, the latest first."""
    checkpoints = []
    for step, folder in _folders(vault.path):
        try:
            document = cast(CommitDocument, vault.read_json(f"{_name(step)}/{COMMIT}"))
            parts = {name: CheckpointPart(**facts) for name, facts in document["parts"].items()}
            whole = document["run_key"] == run_key and all(
                _NAME.fullmatch(name) and (folder / f"{name}.pt").stat().st_size == part.bytes
                for name, part in parts.items()
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        if whole:
            checkpoints.append(Checkpoint(vault, step, parts))
    return checkpoints


def _remove(folder: Path) -> None:
    with writing(folder):
        shutil.rmtree(folder)
