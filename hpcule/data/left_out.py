"""What is said about files of a source: those that are left out, and those that show a patient in their pixels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from hpcule.config.errors import one_line
from hpcule.data.resize import Resized
from hpcule.data.source import LeftOut, Source
from hpcule.data.subset import Subset
from hpcule.data.tiles import Tiles

_SHOWN = 3
_NUMBER = re.compile(r"\d[\d.,]*")


def left_out_notice(*sources: Source) -> str | None:
    """How many of how many files the sources leave out, where, and why; None if there are none."""
    return one_line("; ".join(filter(None, map(_left_out, sources)))) or None


def why_left_out(entry: LeftOut) -> str:
    """Why a file is left out, for the record of an export."""
    return (
        f"{entry.reason or 'excluded'}: left out" if entry.excluded else f"cannot be decoded: left out ({entry.reason})"
    )


def _left_out(source: Source) -> str:
    unreadable = [entry for entry in source.left_out if not entry.excluded]
    excluded = [entry.file for entry in source.left_out if entry.excluded and not entry.reason]
    absent = len(unreadable) + len(excluded) + len(source.ignored)
    if not absent:
        return ""
    reasons = [f"{len(entries):,} {text}: {_some(entries)}" for text, entries in _by_reason(unreadable).items()]
    if excluded:
        reasons.append(f"{len(excluded):,} excluded: {_some(excluded)}")
    if source.ignored:
        kinds = Counter(PurePath(file).suffix.lower() or "no ending" for file in source.ignored)
        named = [f"{ending} {count:,}" for ending, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))]
        reasons.append(f"{len(source.ignored):,} of other kinds: {_some(named)}")
    return (
        f"{source.name}:{source.split}: {absent:,} of {absent + _files(source):,} files left out: {'; '.join(reasons)}"
    )


def _by_reason(entries: Sequence[LeftOut]) -> dict[str, list[str]]:
    """Files by why they cannot be decoded; reasons that differ in numbers alone are one."""
    found: dict[str, tuple[str, list[str]]] = {}
    for entry in entries:
        _, files = found.setdefault(_NUMBER.sub("0", entry.reason), (entry.reason, []))
        files.append(entry.file)
    return {f"cannot be decoded ({reason})": files for reason, files in found.values()}


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def _files(source: Source) -> int:
    """How many files the samples of a source are in, those that `subset` leaves out among them."""
    while isinstance(source, Tiles | Resized | Subset):
        source = source.images if isinstance(source, Tiles) else source.source
    return len({source.file_name(sample) for sample in range(len(source))})


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
