"""What DATA names, as a user writes it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcule.config.errors import UsageError
from hpcule.data.source import Source
from hpcule.data.sources.dicom import DicomSource, dicom_splits, holds_dicom
from hpcule.data.sources.folder import FolderSource, folder_splits
from hpcule.data.sources.hdf5 import Hdf5Source, hdf5_splits
from hpcule.data.sources.idx import idx_splits, open_idx
from hpcule.data.sources.named import CIFAR10_FOLDER, NAMES, named_splits, open_cifar10, open_named, short_name
from hpcule.data.sources.nifti import NiftiSource, holds_volumes, nifti_splits
from hpcule.data.sources.npz import npz_splits, open_npz
from hpcule.data.sources.published import IMAGE_SETS
from hpcule.data.sources.volumes.dicom import DicomVolumes
from hpcule.data.sources.volumes.layouts import volume_layout
from hpcule.data.sources.volumes.nifti import NiftiVolumes
from hpcule.data.sources.wav import WavSource, holds_recordings, wav_splits

_ROOT = Path("~/.cache/hpcule/data")
_NAMES = (*NAMES, *IMAGE_SETS)


class Found(NamedTuple):
    """What DATA names.

    Attributes:
        splits: lists its splits, some of train, val, test, or "all".
        open: opens one of them.
        split: the split that DATA itself names behind its colon, if any.
        files: whether each sample, or a few of them, is a file of its own, which can be excluded.
    """

    splits: Callable[[], tuple[str, ...]]
    open: Callable[[str], Source]
    split: str | None = None
    files: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the files of a folder are read: at one height and width, or length, volumes whole or slice by slice, with
    labels from DICOM elements, and without those that are damaged or excluded."""

    image_size: int | None = None
    clip_length: int | None = None
    volumes: bool = False
    dicom_labels: tuple[str, ...] = ()
    skip_unreadable: bool = False
    exclude: tuple[str, ...] = ()


def find_data(data: str, reading: Reading, root: Path | None = None) -> Found:
    """Find what DATA names.

    Args:
        data: a path (npz, HDF5, folder of images, of DICOM, NIfTI, WAV, FLAC or IDX files, or with
            cifar-10-batches-py) or a name (`digits`, `fashion-mnist`, `cifar10`, `medmnist:NAME`, `oxford-pets`,
            `flowers-17`, `flowers-102`), either with `:SPLIT` behind it. What exists as a path is one.
        reading: how files of a folder are read, those of a named set among them; arrays are opened as they are.
        root: where named sets are kept; default ~/.cache/hpcule/data.

    Raises:
        UsageError: nothing has this path or name.
        DataError: a named set of image files is not on this machine, or not whole.
    """
    root = (root or _ROOT).expanduser()
    before, colon, behind = data.rpartition(":")
    for text, split in ((data, None), *([(before, behind)] if colon else [])):
        path, name = Path(text).expanduser(), short_name(text)
        if text and _exists(path):
            return _at_path(path, reading)._replace(split=split)
        if name in IMAGE_SETS:
            folder = _folder(name, root)
            IMAGE_SETS[name].require(folder)
            return _images(folder, reading)._replace(split=split)
        if name in NAMES:
            return Found(partial(named_splits, name, root), partial(open_named, name, root), split)
    raise UsageError(_unknown(data))


def data_path(data: str) -> Path | None:
    """The file or folder that DATA names; None for a named set of arrays, or where there is nothing."""
    for text in (data, data.rpartition(":")[0]):
        path = Path(text).expanduser()
        if text and _exists(path):
            return path
        if text in IMAGE_SETS:
            return _folder(text, _ROOT.expanduser())
    return None


def _folder(name: str, root: Path) -> Path:
    return root / IMAGE_SETS[name].folder


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, or in a folder that may not be looked into
        return False


def _at_path(path: Path, reading: Reading) -> Found:
    """Look what kind of data is there."""
    if path.is_dir():
        if (path / CIFAR10_FOLDER).is_dir():
            return Found(lambda: ("train", "test"), partial(open_cifar10, path))
        if idx_splits(path):
            return Found(partial(idx_splits, path), partial(open_idx, path))
        size, skip, exclude = reading.image_size, reading.skip_unreadable, reading.exclude
        if holds_dicom(path, exclude):
            labels = reading.dicom_labels
            if reading.volumes:
                series = partial(DicomVolumes, path, skip_unreadable=skip, exclude=exclude, labels=labels)
                return Found(partial(dicom_splits, path, exclude), series, files=True)
            frames = partial(DicomSource, path, image_size=size, skip_unreadable=skip, exclude=exclude, labels=labels)
            return Found(partial(dicom_splits, path, exclude), frames, files=True)
        if holds_volumes(path, exclude):
            if (layout := volume_layout(path, exclude, alone=reading.volumes)) is not None:
                return Found(layout.splits, partial(NiftiVolumes, layout, skip_unreadable=skip), files=True)
            slices = partial(NiftiSource, path, image_size=size, skip_unreadable=skip, exclude=exclude)
            return Found(partial(nifti_splits, path, exclude), slices, files=True)
        if holds_recordings(path, exclude):
            length = reading.clip_length
            recordings = partial(WavSource, path, clip_length=length, skip_unreadable=skip, exclude=exclude)
            return Found(partial(wav_splits, path, exclude), recordings, files=True)
        return _images(path, reading)
    if not path.is_file():  # a named pipe would be waited for
        raise UsageError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() == ".npz":
        return Found(partial(npz_splits, path), partial(open_npz, path))
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Found(partial(hdf5_splits, path), partial(Hdf5Source, path))
    folders = "a folder of images, DICOM, NIfTI, WAV, FLAC or IDX files"
    raise UsageError(f"{path} is no source; valid are .npz, .h5, .hdf5, or {folders}")


def _images(path: Path, reading: Reading) -> Found:
    size, skip, exclude = reading.image_size, reading.skip_unreadable, reading.exclude
    images = partial(FolderSource, path, image_size=size, skip_unreadable=skip, exclude=exclude)
    return Found(partial(folder_splits, path, exclude), images, files=True)


def _unknown(data: str) -> str:
    try:
        neighbours = [str(path) for path in Path(data).expanduser().parent.iterdir()]
    except OSError:
        neighbours = []
    near = difflib.get_close_matches(data, [*_NAMES, *neighbours], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"no file, folder or data set '{data}'{hint} Valid are a path, {', '.join(_NAMES)}; DATA:SPLIT names a split"
