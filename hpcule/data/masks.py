"""Files among the samples that look like masks or maps of labels: as samples they would be perturbed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from hpcule.config.errors import DataError, one_line
from hpcule.data.source import Source
from hpcule.data.sources.frames import FrameSource
from hpcule.data.tiles import Tiles

_NAMES = re.compile(
    r"(?<![a-z])(masks?|d?seg|segmentations?|labels?|labelmap|aparc|aseg|parc|parcellation|atlas|roi|annotations?|gt"
    r"|ground[ _-]?truth)(?![a-z])"
)
_EXAMINED = 64
"""Number of files whose values are read."""
_FEW = 12
"""Largest number of distinct values of what is taken for a map of labels, whatever they are."""
_CLASS_NUMBERS = 64
"""Larger than all values of what is taken for a map of class numbers."""
_PIXELS_A_VALUE = 16
_SHOWN = 3


def mask_notice(*sources: Source) -> str | None:
    """Which files look like masks or maps of labels, by their names, their headers or the values of some; None if there
    are none."""
    found = {file: why for source in sources for file, why in _suspects(source)}
    if not found:
        return None
    shown = "; ".join(f"{file} ({why})" for file, why in list(found.items())[:_SHOWN])
    return one_line(
        f"{len(found):,} file(s) look like masks or label maps, and would be perturbed as images are: {shown}"
        f"{'; ...' if len(found) > _SHOWN else ''}. `craft --exclude PATTERN` copies such files as they are"
    )


def _suspects(source: Source) -> Iterator[tuple[str, str]]:
    images = source.images if isinstance(source, Tiles) else source
    if images.rate is not None or images.file_name(0) is None:
        return
    if isinstance(images, FrameSource):
        yield from (
            (file, f"its {part} says so") for file, part in zip(images.files, images.label_maps, strict=True) if part
        )
    files: dict[str, list[int]] = {}
    for sample in range(len(images)):
        files.setdefault(images.file_name(sample) or "", []).append(sample)
    names = list(files)
    for file in names:
        if match := _NAMES.search(PurePosixPath(file).name.lower()):
            yield file, f"its name says {match[0]}"
    # By chance, since every other file may be a mask; with a fixed seed, so that a notice does not change.
    for number in np.random.default_rng(0).permutation(len(names))[:_EXAMINED].tolist():
        samples = files[names[number]]
        if (count := _few_values(images, samples[len(samples) // 2])) is not None:
            yield names[number], f"{count} distinct values"


def _few_values(source: Source, sample: int) -> int | None:
    """How many distinct values or colours a sample has, if these are as few as those of a map of labels."""
    try:
        native = source.native(sample)
        pixels = source.read(np.array([sample]))[0] if native is None else native.pixels
    except DataError:
        return None
    colours = np.unique(pixels.reshape(len(pixels), -1), axis=1)
    count = colours.shape[1]
    few = count <= _FEW or (not isinstance(source, FrameSource) and colours.max() < _CLASS_NUMBERS)
    return count if few and 1 < count <= pixels[0].size // _PIXELS_A_VALUE else None
