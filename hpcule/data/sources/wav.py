"""Folders of WAV and FLAC files: a sub-folder a class (under train, val, test or not), FSDD's flat layout, or flat,
unlabelled.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, one_line
from hpcule.data.source import Ids, Labels, LeftOut, Recording, Samples, Source, narrowest
from hpcule.data.sources.image_file import ENDINGS as IMAGES
from hpcule.data.sources.layout import Layout, UnreadableError, each, files_below
from hpcule.data.sources.recording import SILENCE, RecordingHead, opened, working

ENDINGS = (".wav", ".flac")
_PLAIN = ("wav", 16, 1)
"""Format, bits and channels of what methods and networks see."""
_FSDD = re.compile(r"(\d)_[^_]+_(\d+)\.(?:wav|flac)")
"""Names in the Free Spoken Digit Dataset: digit, speaker, index."""
_FSDD_TEST = range(5)
"""Indices that its authors keep for testing."""
_FSDD_FOLDER = "recordings"


def holds_recordings(root: Path, exclude: tuple[str, ...] = ()) -> bool:
    """Whether the first file below a folder that is an image or a recording is a recording."""
    for path in files_below(root, exclude):
        if (name := path.name.lower()).endswith((*ENDINGS, *IMAGES)):
            return name.endswith(ENDINGS)
    return False


def wav_splits(root: Path, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Splits of a folder of recordings: train and test of FSDD, else as of a folder of images.

    Raises:
        DataError: see `WavSource`.
    """
    layout = _layout(root, exclude)
    return ("train", "test") if _is_fsdd(layout) else layout.splits()


class WavSource(Source):
    """Recordings as samples [1, 1, T] on an unsigned 16-bit grid: each is shifted up by 32768, so silence is 32768.

    Of several channels the mean is taken, and other widths are rounded to 16 bits; see `working`.
    All have one length T, in samples: a shorter one is padded with silence at its end, a longer one is cut there.
    Ids follow the order of (class, file) names; the classes of all splits are numbered as one.

    Attributes:
        left_out: files that cannot be decoded, and those that are excluded.
    """

    kind = "wav"
    levels = 65535
    decodes = True

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        clip_length: int | None = None,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
    ) -> None:
        """List the files and read their headers.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            clip_length: T; None: that of the longest recording of all splits.
            skip_unreadable: decode each file once now, and leave out those that cannot be decoded.
            exclude: patterns of files that are no samples; see `is_excluded`.

        Raises:
            DataError: no recordings, a class without any, recordings next to class folders, a link that leads out of
                the folder, a damaged file, an empty one, no PCM of 8, 16 or 24 bits, different sample rates.
        """
        self.name, self.split = one_line(root.resolve().name), split
        layout = _layout(root, exclude)
        files, labels, self.class_names = _listed(layout, split)
        self.labels = None if labels is None else narrowest(labels)
        folder = layout.root if _is_fsdd(layout) else layout.folder(split)
        self.folder = folder
        paths = [folder / file for file in files]
        heads = each(lambda path: _head(path, skip_unreadable), paths)
        readable = np.array([isinstance(head, RecordingHead) for head in heads])
        excluded = layout.excluded("all" if _is_fsdd(layout) else split)
        self.left_out = [
            *(
                LeftOut(file, head.reason, excluded=False)
                for file, head in zip(files, heads, strict=True)
                if isinstance(head, UnreadableError)
            ),
            *(LeftOut(file, "", excluded=True) for file in excluded),
        ]
        self.ignored = [] if _is_fsdd(layout) else layout.ignored(split, files)
        if not readable.any():
            raise DataError(f"{folder}: none of the {len(files)} recordings can be decoded")
        if self.labels is not None:
            self.labels = self.labels[readable]
        self._paths = [path for path, kept in zip(paths, readable, strict=True) if kept]
        self._heads = [head for head in heads if isinstance(head, RecordingHead)]
        self.rate = _one_rate(self._paths, self._heads)
        lengths = np.array([head.length for head in self._heads], np.int64)
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
            if recording.samples.shape[1] < length:
                raise DataError(f"{self._paths[sample]} changed while it was in use: start again")
            row[0, 0, :length] = working(recording)[:length]
        return samples

    def recording(self, sample: int) -> Recording | None:
        """See `Source.recording`."""
        head = self._heads[sample]
        if (head.format, head.bits, head.channels) == _PLAIN:
            return None
        recording = _decode(self._paths[sample])
        return recording._replace(samples=recording.samples[:, : self._lengths[sample]])

    def lengths(self, ids: Ids) -> npt.NDArray[np.int64]:
        """See `Source.lengths`."""
        return self._lengths[ids]

    def file_name(self, sample: int) -> str | None:
        """Path of the sample's file below the folder of its split; FSDD's are put into a folder for each digit."""
        path = self._paths[sample]
        if self.labels is None or self.class_names is None:
            return path.name
        return f"{self.class_names[self.labels[sample]]}/{path.name}"


def _layout(root: Path, exclude: tuple[str, ...]) -> Layout:
    """The folder itself, or, in a copy of FSDD's repository, that of its recordings."""
    inner = Layout(root / _FSDD_FOLDER, ENDINGS, "recordings", exclude)
    return inner if inner.root.is_dir() and _is_fsdd(inner) else Layout(root, ENDINGS, "recordings", exclude)


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
    return max((head.length for head in heads if isinstance(head, RecordingHead)), default=0)


def _head(path: Path, skip_unreadable: bool) -> RecordingHead | UnreadableError:
    """The head of a file, or, where unreadable files are to be skipped, what is wrong with it."""
    try:
        with opened(path) as (head, samples):
            if skip_unreadable:
                samples()
            return head
    except UnreadableError as error:
        if skip_unreadable:
            return error
        raise


def _decode(path: Path) -> Recording:
    with opened(path) as (head, samples):
        return Recording(samples(), head.bits, head.rate, head.format)


def _one_rate(paths: list[Path], heads: list[RecordingHead]) -> int:
    first = heads[0].rate
    for path, head in zip(paths, heads, strict=True):
        if head.rate != first:
            raise DataError(
                f"{path} has {head.rate} samples a second, {paths[0].name} has {first}; give all one rate: "
                f"`ffmpeg -i IN.wav -ar {first} -c:a pcm_s16le OUT.wav`"
            )
    return first
