"""What is said about files of a source: those that are left out, and those that show a patient in their pixels."""

from __future__ import annotations

from collections import Counter

from hpcule.config.errors import one_line
from hpcule.data.resize import Resized
from hpcule.data.source import Source
from hpcule.data.subset import Subset
from hpcule.data.tiles import Tiles

_SHOWN = 3


def left_out_notice(*sources: Source) -> str | None:
    """How many files the sources leave out, where, and why; None if there are none."""
    lines = []
    for source in sources:
        unreadable = [f"{entry.file} ({entry.reason})" for entry in source.left_out if not entry.excluded]
        excluded = [entry.file for entry in source.left_out if entry.excluded]
        for entries, why in ((unreadable, "cannot be decoded"), (excluded, "match exclude")):
            if entries:
                shown = "; ".join([*entries[:_SHOWN], *(["..."] if len(entries) > _SHOWN else [])])
                lines.append(f"{source.name}:{source.split}: {len(entries):,} file(s) left out that {why}: {shown}")
    return one_line("; ".join(lines)) or None


def declared_notice(*sources: Source) -> str | None:
    """How many files of the sources say that their pixels show who the patient is; None if there are none."""
    found = Counter(text for source in sources for file in source.declared for text in file)
    return "; ".join(f"{count:,} file(s) say that {text}" for text, count in found.items()) or None


def subset_notice(source: Source) -> str | None:
    """How many samples `subset` leaves out of a copy; None if it takes all."""
    chosen = source.images if isinstance(source, Tiles) else source
    chosen = chosen.source if isinstance(chosen, Resized) else chosen
    if not isinstance(chosen, Subset):
        return None
    missing = len(chosen.source) - len(chosen)
    return (
        f"{source.name}:{source.split}: {missing:,} sample(s) left out, as the store is of a subset"
        if missing
        else None
    )
