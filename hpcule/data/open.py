"""DATA, as a user writes it, to a source."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcule.config.errors import DataError, UsageError
from hpcule.data.resize import Resized
from hpcule.data.source import Source
from hpcule.data.sources.dicom import DicomSource, dicom_splits, holds_dicom
from hpcule.data.sources.folder import FolderSource, folder_splits
from hpcule.data.sources.hdf5 import Hdf5Source, hdf5_splits
from hpcule.data.sources.idx import idx_splits, open_idx
from hpcule.data.sources.named import CIFAR10_FOLDER, NAMES, named_splits, open_cifar10, open_named, short_name
from hpcule.data.sources.nifti import NiftiSource, holds_volumes, nifti_splits
from hpcule.data.sources.npz import npz_splits, open_npz
from hpcule.data.sources.wav import WavSource, holds_recordings, wav_splits
from hpcule.data.tiles import Tiles

_ROOT = Path("~/.cache/hpcule/data")


class _Found(NamedTuple):
    """What DATA names: its splits, and how to open one."""

    splits: Callable[[], tuple[str, ...]]
    open: Callable[[str], Source]


def open_source(
    data: str,
    split: str | None = None,
    *,
    default_split: str = "train",
    image_size: int | None = None,
    tile_size: int | None = None,
    skip_unreadable: bool = False,
    root: Path | None = None,
) -> Source:
    """Open a split of DATA.

    Args:
        data: a path (npz, HDF5, folder of images, of DICOM, NIfTI, WAV, FLAC or IDX files, or with
            cifar-10-batches-py) or a name (`digits`, `fashion-mnist`, `cifar10`, `medmnist:NAME`), either with `:SPLIT`
            behind it. What exists as a path is one.
        split: this split, whatever DATA says.
        default_split: the split if neither says one. Data without splits are one split "all", which serves as "train".
        image_size: resize every image to this height and width; cut and pad every recording to this length.
        tile_size: cut every image into tiles of this height and width instead; see `Tiles`.
        skip_unreadable: leave out files that cannot be decoded (`FolderSource.skipped` lists them).
        root: where named sets are kept; default ~/.cache/hpcule/data.

    Raises:
        UsageError: nothing has this path or name, or the image size is not positive.
        DataError: the data have no such split, or cannot be used as they are.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size={image_size}: valid are whole numbers from 1 on")
    assert image_size is None or tile_size is None
    found, own_split = _find(data, root, image_size or tile_size, skip_unreadable)
    source = found.open(_choose(data, found.splits(), split or own_split or default_split))
    if tile_size is not None:
        return Tiles(source, tile_size)
    if image_size is None or source.rate is not None or source.shape[1:] == (image_size, image_size):
        return source
    return Resized(source, image_size)


def open_test(
    data: str,
    test: str | None,
    *,
    image_size: int | None = None,
    tile_size: int | None = None,
    skip_unreadable: bool = False,
) -> Source:
    """Open the test samples: those of `test`, or the test split of DATA where no other data are named.

    Other data without splits are taken whole.
    """
    opened = partial(open_source, image_size=image_size, tile_size=tile_size, skip_unreadable=skip_unreadable)
    if test is None:
        return opened(data, "test")
    whole = test != data and list_splits(test) == ("all",)
    return opened(test, default_split="all" if whole else "test")


def list_splits(data: str, *, root: Path | None = None) -> tuple[str, ...]:
    """Splits of DATA: some of train, val, test, or "all".

    Raises:
        UsageError: nothing has this path or name.
        DataError: the data cannot be used as they are.
    """
    return _find(data, root)[0].splits()


def _find(
    data: str, root: Path | None, image_size: int | None = None, skip_unreadable: bool = False
) -> tuple[_Found, str | None]:
    """What DATA names, and the split that stands behind its colon."""
    root = (root or _ROOT).expanduser()
    before, colon, behind = data.rpartition(":")
    for text, split in ((data, None), *([(before, behind)] if colon else [])):
        path, name = Path(text).expanduser(), short_name(text)
        if text and _exists(path):
            return _at_path(path, image_size, skip_unreadable), split
        if name in NAMES:
            return _Found(partial(named_splits, name, root), partial(open_named, name, root)), split
    raise UsageError(_unknown(data))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, or in a folder that may not be looked into
        return False


def _at_path(path: Path, image_size: int | None, skip_unreadable: bool) -> _Found:
    """Look what kind of data is there."""
    if path.is_dir():
        if (path / CIFAR10_FOLDER).is_dir():
            return _Found(lambda: ("train", "test"), partial(open_cifar10, path))
        if idx_splits(path):
            return _Found(partial(idx_splits, path), partial(open_idx, path))
        if holds_dicom(path):
            frames = partial(DicomSource, path, image_size=image_size, skip_unreadable=skip_unreadable)
            return _Found(partial(dicom_splits, path), frames)
        if holds_volumes(path):
            slices = partial(NiftiSource, path, image_size=image_size, skip_unreadable=skip_unreadable)
            return _Found(partial(nifti_splits, path), slices)
        if holds_recordings(path):
            recordings = partial(WavSource, path, clip_length=image_size, skip_unreadable=skip_unreadable)
            return _Found(partial(wav_splits, path), recordings)
        opened = partial(FolderSource, path, image_size=image_size, skip_unreadable=skip_unreadable)
        return _Found(partial(folder_splits, path), opened)
    if not path.is_file():  # a named pipe would be waited for
        raise UsageError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() == ".npz":
        return _Found(partial(npz_splits, path), partial(open_npz, path))
    if path.suffix.lower() in (".h5", ".hdf5"):
        return _Found(partial(hdf5_splits, path), partial(Hdf5Source, path))
    folders = "a folder of images, DICOM, NIfTI, WAV, FLAC or IDX files"
    raise UsageError(f"{path} is no source; valid are .npz, .h5, .hdf5, or {folders}")


def _choose(data: str, splits: tuple[str, ...], wanted: str) -> str:
    if wanted in splits:
        return wanted
    if splits == ("all",):
        if wanted == "train":
            return "all"
        raise DataError(f"{data} has no splits, so no '{wanted}': name other data for it, such as --test DATA")
    raise DataError(f"{data} has no split '{wanted}', only {', '.join(splits)}: write DATA:SPLIT, or name other data")


def _unknown(data: str) -> str:
    try:
        neighbours = [str(path) for path in Path(data).expanduser().parent.iterdir()]
    except OSError:
        neighbours = []
    near = difflib.get_close_matches(data, [*NAMES, *neighbours], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"no file, folder or data set '{data}'{hint} Valid are a path, {', '.join(NAMES)}; DATA:SPLIT names a split"
