"""Folders of WAV files: a sub-folder a class (under train, val, test or not), FSDD's flat layout, or flat, unlabelled.

Python's own `wave` reads and writes them: what is supported is mono, 16-bit PCM, and nothing is to be converted.
"""

from __future__ import annotations

import os
import re
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError
from hpcule.data.folder import ENDINGS as IMAGES
from hpcule.data.layout import Layout, UnreadableError, each
from hpcule.data.source import Ids, Labels, Samples, Source

ENDINGS = (".wav",)
SILENCE = 1 << 15
"""Where 0 of a signed 16-bit sample lies on the unsigned grid."""
_FSDD = re.compile(r"(\d)_[^_]+_(\d+)\.wav")
"""Names in the Free Spoken Digit Dataset: digit, speaker, index."""
_FSDD_TEST = range(5)
"""Indices that its authors keep for testing."""
_FSDD_FOLDER = "recordings"
_CONVERT = "convert it: `ffmpeg -i IN.wav -ac 1 -c:a pcm_s16le OUT.wav`"


class _Head(NamedTuple):
    rate: int
    length: int


def holds_recordings(root: Path) -> bool:
    """Whether the first file below a folder that is an image or a recording is a recording."""
    for _, _, files in os.walk(root, followlinks=False):
        for name in map(str.lower, files):
            if name.endswith((*ENDINGS, *IMAGES)):
                return name.endswith(ENDINGS)
    return False


def wav_splits(root: Path) -> tuple[str, ...]:
    """Splits of a folder of recordings: train and test of FSDD, else as of a folder of images.

    Raises:
        DataError: see `WavSource`.
    """
    layout = _layout(root)
    return ("train", "test") if _is_fsdd(layout) else layout.splits()


class WavSource(Source):
    """Recordings as samples [1, 1, T] on an unsigned 16-bit grid: each is shifted up by 32768, so silence is 32768.

    All have one length T, in samples: a shorter one is padded with silence at its end, a longer one is cut there.
    Ids follow the order of (class, file) names; the classes of all splits are numbered as one.

    Attributes:
        skipped: files that were left out because they cannot be decoded.
    """

    kind = "wav"
    levels = 65535
    decodes = True

    def __init__(
        self, root: Path, split: str, *, clip_length: int | None = None, skip_unreadable: bool = False
    ) -> None:
        """List the files and read their headers.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            clip_length: T; None: that of the longest recording of all splits.
            skip_unreadable: decode each file once now, and leave out those that cannot be decoded.

        Raises:
            DataError: no recordings, a class without any, recordings beside class folders, a link that leads out of
                the folder, a damaged file, an empty one, no 16-bit PCM, stereo, different sample rates.
        """
        self.name, self.split = root.resolve().name, split
        layout = _layout(root)
        files, self.labels, self.class_names = _listed(layout, split)
        folder = layout.root if _is_fsdd(layout) else layout.folder(split)
        paths = [folder / file for file in files]
        heads = each(lambda path: _head(path, skip_unreadable), paths)
        readable = np.array([isinstance(head, _Head) for head in heads])
        self.skipped = tuple(file for file, kept in zip(files, readable, strict=True) if not kept)
        if not readable.any():
            raise DataError(f"{folder}: none of the {len(files)} recordings can be decoded")
        if self.labels is not None:
            self.labels = self.labels[readable]
        self._paths = [path for path, kept in zip(paths, readable, strict=True) if kept]
        kept_heads = [head for head in heads if isinstance(head, _Head)]
        self.rate = _one_rate(self._paths, kept_heads)
        lengths = np.array([head.length for head in kept_heads], np.int64)
        longest = clip_length or max(int(lengths.max()), _longest_elsewhere(layout, split, skip_unreadable))
        self.shape = (1, 1, longest)
        self._lengths = lengths.clip(max=longest)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        samples = np.full((len(ids), *self.shape), SILENCE, np.uint16)
        recordings = each(_decode, [self._paths[sample] for sample in ids])
        for row, sample, recording in zip(samples, ids, recordings, strict=True):
            length = self._lengths[sample]
            if len(recording) < length:
                raise DataError(f"{self._paths[sample]} changed while it was in use: start again")
            row[0, 0, :length] = recording[:length]
        return samples

    def lengths(self, ids: Ids) -> npt.NDArray[np.int64]:
        """See `Source.lengths`."""
        return self._lengths[ids]

    def file_name(self, sample: int) -> str | None:
        """Path of the sample's file below the folder of its split; FSDD's are put into a folder for each digit."""
        path = self._paths[sample]
        if self.labels is None or self.class_names is None:
            return path.name
        return f"{self.class_names[self.labels[sample]]}/{path.name}"


def _layout(root: Path) -> Layout:
    """The folder itself, or, in a copy of FSDD's repository, that of its recordings."""
    inner = Layout(root / _FSDD_FOLDER, ENDINGS, "recordings")
    return inner if inner.root.is_dir() and _is_fsdd(inner) else Layout(root, ENDINGS, "recordings")


def _is_fsdd(layout: Layout) -> bool:
    folders, files = layout.listed(layout.root)
    return bool(files) and not folders and all(_FSDD.fullmatch(file) for file in files)


def _listed(layout: Layout, split: str) -> tuple[list[str], Labels | None, tuple[str, ...] | None]:
    """Files of a split, their class numbers, and the names of the classes."""
    if not _is_fsdd(layout):
        files = layout.scan(split)
        return files, *layout.classes(files, split)
    names = [(file, match) for file in layout.listed(layout.root)[1] if (match := _FSDD.fullmatch(file))]
    classes = tuple(sorted({match[1] for _, match in names}))
    chosen = [(file, match) for file, match in names if (int(match[2]) in _FSDD_TEST) == (split == "test")]
    if not chosen:
        raise DataError(f"{layout.root} holds no recordings of the split {split}: FSDD's indices 0 to 4 are its test")
    labels = np.array([classes.index(match[1]) for _, match in chosen], np.int64)
    return [file for file, _ in chosen], labels, classes


def _longest_elsewhere(layout: Layout, split: str, skip_unreadable: bool) -> int:
    """Samples of the longest recording of the other splits, which must fit the same network."""
    if _is_fsdd(layout):
        paths = [layout.root / file for file in layout.listed(layout.root)[1]]
    else:
        paths = [layout.folder(o) / file for o in layout.splits() if o != split for file in layout.scan(o)]
    heads = each(lambda path: _head(path, skip_unreadable), paths)
    return max((head.length for head in heads if isinstance(head, _Head)), default=0)


@contextmanager
def _opened(path: Path) -> Iterator[wave.Wave_read]:
    """Open a recording; whatever is damaged about it inside the block is an `UnreadableError` that names the file."""
    try:
        if not path.is_file():  # a named pipe would be waited for
            raise OSError("no regular file")
        with path.open("rb") as file, wave.open(file) as recording:
            yield recording
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        if str(error).startswith("unknown format"):
            raise DataError(f"{path} is no plain PCM ({error}); {_CONVERT}") from None
        reason = str(error) or "it ends too early"
        raise UnreadableError(
            f"{path} cannot be decoded ({reason}): replace it, or leave out such files with --set skip_unreadable=true"
        ) from None


def _head(path: Path, skip_unreadable: bool) -> _Head | UnreadableError:
    """Rate and length of a file, or, where unreadable files are to be skipped, what is wrong with it."""
    try:
        with _opened(path) as recording:
            channels, width, rate, length, *_ = recording.getparams()
            if channels != 1:
                raise DataError(f"{path} has {channels} channels, and hpcule reads one; {_CONVERT}")
            if width != 2:
                raise DataError(f"{path} has {8 * width} bits a sample, and hpcule reads 16; {_CONVERT}")
            if length == 0 or rate < 1:
                raise OSError("no samples in it")
            if 2 * length > path.stat().st_size:
                raise EOFError(f"its header says {length} samples, more than it holds")
            if skip_unreadable:
                _samples(recording)
            return _Head(rate, length)
    except UnreadableError as error:
        if skip_unreadable:
            return error
        raise


def _decode(path: Path) -> npt.NDArray[np.uint16]:
    with _opened(path) as recording:
        return _samples(recording)


def _samples(recording: wave.Wave_read) -> npt.NDArray[np.uint16]:
    """All of a recording, shifted onto the unsigned grid: in two's complement that turns the highest bit."""
    data = recording.readframes(recording.getnframes())
    if len(data) != 2 * recording.getnframes():
        raise EOFError(f"{len(data) // 2} samples where its header says {recording.getnframes()}")
    # `wave` gives samples in the machine's own order of bytes.
    return np.frombuffer(data, np.uint16) ^ np.uint16(SILENCE)


def _one_rate(paths: list[Path], heads: list[_Head]) -> int:
    first = heads[0].rate
    for path, head in zip(paths, heads, strict=True):
        if head.rate != first:
            raise DataError(
                f"{path} has {head.rate} samples a second, {paths[0].name} has {first}; give all one rate: "
                f"`ffmpeg -i IN.wav -ar {first} -c:a pcm_s16le OUT.wav`"
            )
    return first
