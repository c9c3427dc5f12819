"""Writing published samples as tar files in WebDataset's layout, for loaders that stream.

A sample is a run of members with one stem, its id: 000123.png (or .wav) and, where there are labels, 000123.cls with
the number of its class. classes.json next to the shards lists the classes' names.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcule.publish.formats import SplitCopy, stem
from hpcule.store.staged import create

SAMPLES = 10_000
"""Largest number of samples in a shard."""
BYTES = 256 << 20
"""Largest size of a shard in bytes, unless a single sample is larger."""


def write_webdataset(folder: Path, parts: Sequence[SplitCopy]) -> None:
    """Write 000000.tar, 000001.tar, ..., or train-000000.tar and so on where there are splits, in the order of ids."""
    names = parts[0].source.class_names
    if names is not None:
        with create(folder / "classes.json") as file:
            file.write(f"{json.dumps(names, indent=1)}\n".encode())
    for part in parts:
        _write_shards(folder, part)


def _write_shards(folder: Path, part: SplitCopy) -> None:
    prefix, labels = f"{part.split}-" if part.split else "", part.source.labels
    files, shard = part.files(), 0
    upcoming = next(files, None)
    while upcoming is not None:
        with (
            create(folder / f"{prefix}{shard:06d}.tar") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for count in range(SAMPLES):
                if upcoming is None or (count and archive.offset + len(upcoming[2]) > BYTES):
                    break
                sample, ending, data = upcoming
                members = {ending: data}
                if labels is not None:
                    members[".cls"] = str(labels[sample]).encode()
                _add(archive, stem(part.source, sample), members)
                upcoming = next(files, None)
        shard += 1


def _add(archive: tarfile.TarFile, name: str, members: Mapping[str, bytes]) -> None:
    """Add files of no owner and of 1970, which is tarfile's default: equal samples give equal bytes."""
    for ending, data in members.items():
        member = tarfile.TarInfo(f"{name}{ending}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
