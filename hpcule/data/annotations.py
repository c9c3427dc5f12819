"""What is known of samples besides a class: several labels each, and masks that give every pixel a class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, one_line

Masks = npt.NDArray[np.uint8]
"""Class numbers of pixels [n, H, W]; `VOID` where a pixel has none."""

UNKNOWN = -1
"""A label that nobody has given."""
VOID = 255
"""A pixel whose class does not count."""
BACKGROUND = "background"
"""Name of the class that measures leave out."""
VOID_NAMES = ("void", "ignore", "unlabelled", "unlabeled")
"""Names of classes of pixels that do not count."""
TABLE = "labels.csv"
"""Name of a table of labels next to a folder of files."""

_FILE, _SPLIT = "file", "split"
_VALUES: Mapping[str, int] = {
    **dict.fromkeys(("0", "0.0"), 0),
    **dict.fromkeys(("1", "1.0"), 1),
    **dict.fromkeys(("", "-1", "-1.0", "nan", "NaN"), UNKNOWN),
}
_MOST_BYTES = 1 << 30
_MOST_LABELS = 10_000
_BLOCK = 64
"""Masks that are looked at together."""


@dataclass(frozen=True)
class LabelMatrix:
    """Several labels of each sample.

    Attributes:
        values: int8 [n, L]: 1 where a label holds, 0 where it does not, `UNKNOWN` where nobody has said.
        names: L names.
    """

    values: npt.NDArray[np.int8]
    names: tuple[str, ...]

    def of(self, ids: npt.NDArray[np.int64]) -> LabelMatrix:
        """The labels of these samples."""
        return LabelMatrix(self.values[ids], self.names)


class StoredArray(Protocol):
    """An array in memory or a dataset in a file, before its values are read."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""


class MaskRows(Protocol):
    """An array whose first axis is read in parts."""

    def __len__(self) -> int: ...

    def __getitem__(self, ids: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]: ...


class MaskReader(Protocol):
    """Reads the masks of samples."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """Masks [n, H, W] of the samples with these ids, as large as the samples.

        Raises:
            DataError: a mask cannot be read; the message names the file.
        """

    def native(self, sample: int) -> Masks:
        """The mask [H, W] of a sample at the size of its file.

        Raises:
            DataError: it cannot be read; the message names the file.
        """


def mask_blocks(masks: MaskReader, first: int, count: int) -> Iterator[Masks]:
    """The masks [n, H, W] of the samples first .. first + count - 1, some at a time."""
    for start in range(first, first + count, _BLOCK):
        yield masks.read(np.arange(start, min(start + _BLOCK, first + count), dtype=np.int64))


@dataclass(frozen=True)
class ChosenMasks:
    """The masks of some samples of a source.

    Attributes:
        masks: of all samples.
        ids: int64 [n] of those that are there.
    """

    masks: MaskReader
    ids: npt.NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self.masks.names

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        return self.masks.read(self.ids[ids])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        return self.masks.native(int(self.ids[sample]))


@dataclass(frozen=True)
class MaskNumbers:
    """The classes of the values that masks hold.

    Attributes:
        numbers: int16 [256], the class of every value, `VOID` where it does not count, -1 where it is none.
        names: of the classes.
    """

    numbers: npt.NDArray[np.int16]
    names: tuple[str, ...]

    @classmethod
    def named(cls, classes: Mapping[int, str]) -> MaskNumbers:
        """Number classes in the order of their values.

        Args:
            classes: names by value; those in `VOID_NAMES` do not count.
        """
        numbers = np.full(256, -1, np.int16)
        counted = [value for value in sorted(classes) if classes[value].lower() not in VOID_NAMES]
        numbers[[VOID, *classes]] = VOID
        numbers[counted] = np.arange(len(counted))
        return cls(numbers, tuple(classes[value] for value in counted))

    @classmethod
    def found(cls, values: Sequence[int], where: str, remedy: str) -> MaskNumbers:
        """Number values that nobody has named: 0 is the background, and 255 does not count unless it is all the rest.

        Args:
            values: all that the masks hold, each once.
            where: for the message.
            remedy: for the message: where names could stand.

        Raises:
            DataError: there is no 0, or nothing else.
        """
        counted = sorted({*values} - {VOID} or {*values})
        if counted == [0] and VOID in values:
            counted = [0, VOID]
        if 0 not in counted or len(counted) < 2:
            shown = ", ".join(map(str, counted[:10]))
            raise DataError(
                f"{where}: masks with the values {shown}; valid is 0 for the background and another number for each "
                f"class{remedy}"
            )
        return cls.named({value: str(value) if value else BACKGROUND for value in counted})

    def of(self, values: npt.NDArray[np.uint8], where: str) -> Masks:
        """The classes of a mask's values.

        Raises:
            DataError: a value is no class.
        """
        numbers = self.numbers[values]
        if (numbers < 0).any():
            known = ", ".join(map(str, np.flatnonzero(self.numbers >= 0).tolist()[:12]))
            raise DataError(f"{where}: the value {values[numbers < 0][0]} is no class; valid are {known}")
        return numbers.astype(np.uint8)


class ArrayMasks:
    """Masks that are one array, of samples that have no other size.

    Attributes:
        names: of the classes.
    """

    def __init__(self, values: MaskRows, numbers: MaskNumbers | None = None, where: str = "masks") -> None:
        """Take masks [N, H, W].

        Args:
            values: uint8, indexed by ids.
            numbers: the classes of values; None: those that are found.
            where: for messages.

        Raises:
            DataError: there are none to be found.
        """
        self._values, self._where = values, where
        self._numbers = numbers or MaskNumbers.found(found_values(values), where, "")
        self.names = self._numbers.names

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        return self._numbers.of(np.asarray(self._values[ids]), self._where)

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        mask: Masks = self.read(np.array([sample], np.int64))[0]
        return mask


def found_values(values: MaskRows) -> list[int]:
    """All values of masks [N, H, W], in rising order."""
    seen = np.zeros(256, bool)
    for start in range(0, len(values), _BLOCK):
        seen[np.unique(values[np.arange(start, min(start + _BLOCK, len(values)))])] = True
    return [int(value) for value in np.flatnonzero(seen)]


def label_matrix(raw: StoredArray, count: int, where: str) -> LabelMatrix:
    """The labels [n, L] of `count` samples as they are stored in a file, named by their numbers.

    Args:
        raw: numpy array or HDF5 dataset, read only once its shape and type fit.
        count: number of samples.
        where: file and member, for messages.

    Raises:
        DataError: another shape, or values besides 0, 1, -1 and NaN.
    """
    if raw.ndim != 2 or raw.shape[0] != count or not 1 <= raw.shape[1] <= _MOST_LABELS:
        raise DataError(f"{where}: labels of the shape {list(raw.shape)} for {count} samples; valid is [{count}, L]")
    if raw.dtype.kind not in "uibf":
        raise DataError(f"{where}: the labels are {raw.dtype}; valid are 0, 1, and -1 or NaN for unknown")
    values = np.asarray(raw)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), UNKNOWN, values)
    odd = ~np.isin(values, (0, 1, UNKNOWN))
    if odd.any():
        row, column = np.argwhere(odd)[0].tolist()
        raise DataError(
            f"{where}: label {column} of sample {row} is {values[row, column]}; valid are 0, 1, and -1 for unknown"
        )
    return LabelMatrix(values.astype(np.int8), tuple(map(str, range(values.shape[1]))))


@dataclass(frozen=True)
class LabelTable:
    """A table of labels: a row a file, a column a label.

    Attributes:
        path: of the table.
        names: of the labels.
        rows: values int8 [L] by file, and by (split, file) where the table has splits.
        split: whether it has.
    """

    path: Path
    names: tuple[str, ...]
    rows: Mapping[tuple[str, str], Sequence[int]]
    split: bool

    def of(self, files: Sequence[str], split: str) -> LabelMatrix:
        """The labels of files of a split, each given by its path below the folder of that split.

        A table names a file by that path, or by what follows `images/` in it.

        Raises:
            DataError: a file has no row.
        """
        own = split if self.split else ""
        rows = []
        for file in files:
            names = ((own, file), (own, file.removeprefix("images/")))
            row = next((self.rows[name] for name in names if name in self.rows), None)
            if row is None:
                place = f"{split}, " if self.split else ""
                raise DataError(
                    f"{self.path} has no row for {place}{file}: add one, with empty values for labels that nobody knows"
                )
            rows.append(row)
        return LabelMatrix(np.array(rows, np.int8).reshape(len(files), len(self.names)), self.names)


def read_label_table(path: Path) -> LabelTable:
    """Read a table in CSV with the columns `file`, `split` if files of several splits are in it, and one a label.

    Labels are 1, 0, or unknown: empty, -1 or nan.

    Raises:
        DataError: no such table, too large, a column missing, a value that is no label, a file that has two rows.
    """
    reader = csv.reader(io.StringIO(_text(path)), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        names, has_split = _label_names(path, header), _SPLIT in header
        rows: dict[tuple[str, str], list[int]] = {}
        for number, cells in enumerate(reader, 2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{path}: line {number} has {len(cells)} values, the first line {len(header)}")
            row = dict(zip(header, map(str.strip, cells), strict=True))
            key = (row[_SPLIT] if has_split else "", row[_FILE])
            if key in rows:
                raise DataError(f"{path}: line {number} names {row[_FILE]} once more; leave one row a file")
            rows[key] = [_value(path, number, name, row[name]) for name in names]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no CSV ({error})") from None
    return LabelTable(path, names, rows, has_split)


def _label_names(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    names = tuple(one_line(name) for name in header if name not in (_FILE, _SPLIT))
    if _FILE not in header or not names or len(names) > _MOST_LABELS:
        raise DataError(
            f"{path} begins with {one_line(', '.join(header))[:200]!r}; valid is a column `{_FILE}`, one `{_SPLIT}` if "
            "there are splits, and one for each label"
        )
    if len(set(header)) < len(header) or not all(names):
        raise DataError(f"{path}: two columns have one name, or a column has none; name each differently")
    return names


def _value(path: Path, number: int, name: str, text: str) -> int:
    if text not in _VALUES:
        raise DataError(
            f"{path}, line {number}: {name} is {one_line(text)[:40]!r}; valid are 0, 1, and empty or -1 for unknown: "
            "leave out columns that are no labels"
        )
    return _VALUES[text]


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("no regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES:,} bytes; split the collection")
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from None


def write_label_table(matrices: Mapping[str, tuple[Sequence[str], LabelMatrix]]) -> bytes:
    """A table in CSV of the labels of files, by split; "" for none.

    Args:
        matrices: by split, the files and their labels; the names of labels are the same in all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    split = [_SPLIT] if any(matrices) else []
    names = next(iter(matrices.values()))[1].names
    writer.writerow([*split, _FILE, *names])
    for name, (files, matrix) in matrices.items():
        for file, values in zip(files, matrix.values.tolist(), strict=True):
            writer.writerow([*([name] if split else []), file, *("" if one == UNKNOWN else one for one in values)])
    return text.getvalue().encode()
