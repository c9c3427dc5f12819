"""What files of several frames have in common when they are published: their names and their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hpcule.data.source import Native
from hpcule.data.sources.frames import FrameSource
from hpcule.publish.collection import Compare, PublishNative, Record

Pairs = Sequence[tuple[Native, Native]]
"""Frames of a file as they were and as they are published."""
NativeBound = Callable[[Native], int]
"""How far stored values of an image may have moved."""


def neutral_name(source: FrameSource, file: int, ending: str) -> str:
    """A name that says nothing of a patient: the class, and the number of the file."""
    name = f"{file:06d}{ending}"
    if source.labels is None or source.class_names is None:
        return name
    return f"{source.class_names[source.labels[source.of_file(file)[0]]]}/{name}"


def published_frames(source: FrameSource, file: int, publish: PublishNative | None) -> Pairs:
    """The frames of a file; none where it is only copied."""
    if publish is None:
        return []
    ids = source.of_file(file)
    clean = [source.native(sample) for sample in ids]
    return [(native, publish(sample, native)) for sample, native in zip(ids, clean, strict=True)]


def with_numbers(record: Record, pairs: Pairs, compare: Compare, bound: NativeBound) -> Record:
    """The record of a file with the largest change of its frames, and what `compare` says of the one changed most."""
    if not pairs:
        return record
    changes = [np.abs(np.subtract(after.pixels, before.pixels, dtype=np.int64)) for before, after in pairs]
    most = max(range(len(pairs)), key=lambda frame: float(changes[frame].mean()))
    before, after = (native._replace(pixels=native.shown(), grid=None) for native in pairs[most])
    bounds = [bound(native) for native, _ in pairs]
    numbers = {
        **compare(before, after),
        "frames": str(len(pairs)),
        "largest_stored_change": str(max(int(change.max()) for change in changes)),
        "stored_budget": str(max(bounds)),
    }
    narrow = [] if min(bounds) else ["a window so narrow that the budget is less than one stored level"]
    note = ", ".join([*filter(None, [record.note]), *narrow])
    return replace(record, protected=max(bounds) > 0, note=note, numbers=numbers)
