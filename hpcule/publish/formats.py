"""Writing published samples: a folder of PNG or WAV files, an npz, an HDF5 file. Memory does not grow with them.

Nothing but samples, labels and names is written, and no file carries the time, so equal samples give equal bytes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from PIL import Image

from hpcule.config.errors import StoreError
from hpcule.data.annotations import mask_blocks
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.array import Array
from hpcule.data.sources.recording import encode, plain
from hpcule.publish.collection import planes
from hpcule.store.fingerprint import blocks
from hpcule.store.staged import create

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_SIGNATURE = 8
"""Bytes by which an HDF5 file is known."""
_UNSAFE = re.compile(r"[^\w .()+-]")


@dataclass(frozen=True)
class SplitCopy:
    """What is written of one split.

    Attributes:
        split: "train", "val", "test" or, where the data has no splits, "".
        source: gives names and labels.
        publish: turns (ids, clean samples) into the samples to write, of the same shape and dtype.
        native: gives an image as it is published at its own size; None: images are published at the source's size.
        recording: gives a recording as it is published in its file's own channels, bits and format, where it has others
            than the source's samples.
        places: filled by writers of folders: where each sample went below the split's folder, in the order of the ids.
    """

    split: str
    source: Source
    publish: Callable[[Ids, Samples], Samples]
    native: Callable[[int], Native | None] | None = None
    recording: Callable[[int], Recording | None] = lambda sample: None
    places: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[tuple[Ids, Samples]]:
        """Yield (ids, samples [n, C, H, W]) in id order."""
        for ids, clean in blocks(self.source, 0, len(self.source)):
            yield ids, self.publish(ids, clean)

    def files(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield each sample in id order as the bytes of a file, with its id and ending: an image as a lossless PNG, a
        recording without its padding, in its own format or as mono 16-bit PCM."""
        if self.native is not None:
            for sample in range(len(self.source)):
                image = self.native(sample)
                assert image is not None
                yield sample, ".png", png_bytes(planes(image))
            return
        for ids, samples in self.blocks():
            lengths = self.source.lengths(ids)
            for sample, length, values in zip(ids.tolist(), lengths.tolist(), samples, strict=True):
                if self.source.rate is None:
                    yield sample, ".png", png_bytes(values)
                elif (own := self.recording(sample)) is not None:
                    yield sample, f".{own.format}", encode(own)
                else:
                    yield sample, ".wav", encode(plain(values[0, 0, :length], self.source.rate))


def write_folder(folder: Path, parts: Sequence[SplitCopy]) -> None:
    """Write each sample as a file at the place of its source file, or as CLASS/000123.png."""
    for part in parts:
        classes = _class_folders(part.source)
        for sample, ending, data in part.files():
            place = _free(folder / part.split / _place(part.source, sample, classes), ending)
            with create(place) as file:
                file.write(data)
            part.places.append(place.relative_to(folder / part.split).as_posix())


def wav_error(source: Source) -> str | None:
    """Say why the samples of a source cannot be written as WAV or FLAC, or return None."""
    return None if source.rate is not None else "WAV files hold recordings, and these are images"


def folder_error(source: Source) -> str | None:
    """Say why the samples of a source cannot be written as PNG, or return None."""
    if source.rate is not None:
        return "PNG holds images, and these are recordings"
    if source.kind in ("dicom", "nifti"):
        return f"names of {source.kind} files may identify patients, and PNG files would keep them"
    if source.folder is None and (source.masks is not None or source.label_matrix is not None):
        return "a folder of images keeps no masks and tables of arrays"
    channels = source.shape[0]
    if source.dtype == np.uint8 and channels <= 4:
        return None
    if channels == 1:
        return None
    return f"PNG cannot hold {channels} channels of {source.dtype}"


def write_npz(path: Path, parts: Sequence[SplitCopy]) -> None:
    """Write an uncompressed npz of NHWC images and labels, in MedMNIST's layout where there are splits."""
    with create(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for array in _arrays(parts):
            with archive.open(zipfile.ZipInfo(f"{array.name}.npy", _ZIP_EPOCH), "w", force_zip64=True) as member:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(member, header)
                for block in array.blocks():
                    member.write(np.ascontiguousarray(block, dtype=array.dtype).data)


def write_hdf5(path: Path, parts: Sequence[SplitCopy]) -> None:
    """Write an HDF5 file of NHWC images and labels, with the names of the npz.

    HDF5 only lays the datasets out; their bytes are written with plain writes, as HDF5 does not survive a full disk.
    Its signature comes last: what a killed process leaves is no HDF5 file, rather than one with zeros in it.
    """
    arrays = _arrays(parts)
    create(path).close()
    with h5py.File(path, "w", locking=False) as file:
        places = [_allocate(file, array) for array in arrays]
    with path.open("r+b") as raw:
        signature = raw.read(_SIGNATURE)
        raw.seek(0)
        raw.write(bytes(_SIGNATURE))
        raw.flush()
        for array, place in zip(arrays, places, strict=True):
            raw.seek(place)
            for block in array.blocks():
                raw.write(np.ascontiguousarray(block, dtype=array.dtype).data)
        raw.seek(0)
        raw.write(signature)


def png_bytes(image: Samples) -> bytes:
    """An image [C, H, W] as PNG."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def safe_name(name: str) -> str:
    """Return a name that is one harmless component of a path on every file system."""
    return _UNSAFE.sub("-", name).strip(". ") or "unnamed"


def stem(source: Source, sample: int) -> str:
    """Name of a file that is called after its sample's id: 000123."""
    return f"{sample:0{max(6, len(str(len(source) - 1)))}d}"


@dataclass(frozen=True)
class _ArrayPlan:
    """An array that is written block by block along its first axis."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]


def _arrays(parts: Sequence[SplitCopy]) -> list[_ArrayPlan]:
    """Images [N, H, W, C], or [N, H, W] of one channel; labels [N, 1] in a split, as MedMNIST has them, else [N];
    several labels [N, L]; masks [N, H, W]."""
    plans = []
    for part in parts:
        prefix = f"{part.split}_" if part.split else ""
        source, (channels, height, width) = part.source, part.source.shape
        shape = (len(source), height, width) if channels == 1 else (len(source), height, width, channels)
        dtype = source.dtype.newbyteorder("<")
        plans.append(_ArrayPlan(f"{prefix}images", shape, dtype, _image_blocks(part)))
        if (labels := source.labels) is not None:
            column = labels.astype("<i8").reshape((-1, 1) if part.split else -1)
            plans.append(_ArrayPlan(f"{prefix}labels", column.shape, np.dtype("<i8"), _one_block(column)))
        if (matrix := source.label_matrix) is not None:
            values = matrix.values
            plans.append(_ArrayPlan(f"{prefix}label_matrix", values.shape, values.dtype, _one_block(values)))
        if (masks := source.masks) is not None:
            stream = partial(mask_blocks, masks, 0, len(source))
            plans.append(_ArrayPlan(f"{prefix}masks", (len(source), height, width), np.dtype(np.uint8), stream))
    return plans


def _image_blocks(part: SplitCopy) -> Callable[[], Iterator[Array]]:
    def stream() -> Iterator[Array]:
        for _, samples in part.blocks():
            yield samples[:, 0] if samples.shape[1] == 1 else samples.transpose(0, 2, 3, 1)

    return stream


def _one_block(array: Array) -> Callable[[], Iterator[Array]]:
    return lambda: iter([array])


def _allocate(file: h5py.File, array: _ArrayPlan) -> int:
    """Create a contiguous dataset whose space exists at once and return its place in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind, space = h5py.h5t.py_create(array.dtype), h5py.h5s.create_simple(array.shape)
    created = h5py.h5d.create(file.id, array.name.encode(), kind, space, properties)
    place: int = created.get_offset()
    return place


def _class_folders(source: Source) -> list[str]:
    """A folder name for each class, safe and unlike the others even where upper and lower case are one."""
    names: list[str] = []
    taken: set[str] = set()
    for name in source.class_names or ():
        safe, suffix = safe_name(name), 2
        while safe.casefold() in taken:
            safe, suffix = f"{safe_name(name)}-{suffix}", suffix + 1
        taken.add(safe.casefold())
        names.append(safe)
    return names


def _place(source: Source, sample: int, classes: Sequence[str]) -> PurePosixPath:
    """Relative path of a sample's file, without the ending."""
    if (given := source.file_name(sample)) is not None:
        path = PurePosixPath(given)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise StoreError(f"{source.name}: the name {given!r} of sample {sample} leads out of the folder; rename it")
        return path.with_suffix("")
    number = stem(source, sample)
    return PurePosixPath(classes[source.labels[sample]], number) if source.labels is not None else PurePosixPath(number)


def _free(stem: Path, ending: str) -> Path:
    """STEM.png, or STEM-2.png and so on where a.jpg and a.bmp, or A.png and a.png, ask for the same name."""
    place, suffix = stem.with_name(f"{stem.name}{ending}"), 2
    while place.exists():
        place, suffix = stem.with_name(f"{stem.name}-{suffix}{ending}"), suffix + 1
    return place
