"""What a copy of a folder says of its samples besides their classes: the table of labels, and the classes of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hpcule.data.annotations import TABLE, LabelMatrix, read_label_table, write_label_table
from hpcule.data.source import Source
from hpcule.data.sources.mask_files import CLASSES, MaskFiles, class_list, listed_classes
from hpcule.publish.collection import Record
from hpcule.store.staged import create


def write_annotations(folder: Path, sources: Mapping[str, Source], records: Sequence[Record]) -> None:
    """Write the table and the list next to the files of a copy; neither where the sources have none.

    Args:
        folder: the copy.
        sources: by split; "" for none.
        records: what became of each file.
    """
    tables = _tables(sources, records)
    if tables:
        with create(folder / TABLE) as file:
            file.write(write_label_table(tables))
    masks = next((one.masks for one in sources.values() if isinstance(one.masks, MaskFiles)), None)
    if masks is not None and masks.list.exists():
        with create(folder / CLASSES) as file:
            file.write(class_list(listed_classes(masks.list)))


def check_annotations(folder: Path, sources: Mapping[str, Source], records: Sequence[Record]) -> None:
    """Compare the table of a copy with the labels of its sources.

    Raises:
        ValueError: they differ.
        DataError: it cannot be read.
    """
    for split, (files, expected) in _tables(sources, records).items():
        found = read_label_table(folder / TABLE).of(files, split)
        if found.names != expected.names or not np.array_equal(found.values, expected.values):
            raise ValueError("labels differ")


def _tables(sources: Mapping[str, Source], records: Sequence[Record]) -> dict[str, tuple[Sequence[str], LabelMatrix]]:
    return {
        split: ([one.published for one in records if one.split == split and one.published and not one.excluded], matrix)
        for split, source in sources.items()
        if (matrix := source.label_matrix) is not None
    }
