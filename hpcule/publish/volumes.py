"""Volumes published whole, with their masks as they are: below `images` and `masks`, or in nnU-Net's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from hpcule.data.annotations import VOID_NAMES
from hpcule.data.source import Source
from hpcule.data.sources.mask_files import CLASSES, IMAGES, MASK, MASKS, class_list, stem_of
from hpcule.data.sources.volumes.layouts import DESCRIPTION, FIRST_CHANNEL, NNUNET_FOLDERS
from hpcule.data.sources.volumes.nifti import NiftiVolumes, VolumeMasks, as_voxels
from hpcule.publish.collection import Compare, PublishNative, Record
from hpcule.publish.excluded import NOTE
from hpcule.publish.frames import NativeBound, neutral_name, published_frames, with_numbers
from hpcule.publish.nifti import copy_volume, write_volume
from hpcule.store.staged import create

_COMPRESSED = ".nii.gz"


class Places(Protocol):
    """Where volumes and masks go in a copy."""

    def of(self, split: str, source: NiftiVolumes, number: int) -> tuple[str, str]:
        """The path of a volume and that of its mask, below the folder that files of the split go to."""

    def folder(self, copy: Path, split: str) -> Path:
        """The folder that files of a split go to."""


@dataclass(frozen=True)
class Pairs:
    """`images/NAME` and `masks/NAME`; NAME alone where there are no masks.

    Attributes:
        keep_names: whether files keep their names, which may be those of patients.
    """

    keep_names: bool

    def of(self, split: str, source: NiftiVolumes, number: int) -> tuple[str, str]:
        """See `Places.of`."""
        file = source.files[number]
        name = neutral_name(source, number, _COMPRESSED if file.lower().endswith(".gz") else ".nii")
        if source.mask_files is None:
            return file if self.keep_names else name, ""
        below = file.removeprefix(f"{IMAGES}/") if file.startswith(f"{IMAGES}/") else PurePosixPath(file).name
        image, mask = below if self.keep_names else name, PurePosixPath(source.mask_files[number])
        return f"{IMAGES}/{image}", f"{MASKS}/{stem_of(image)}{mask.name[len(stem_of(mask.name)) :]}"

    def folder(self, copy: Path, split: str) -> Path:
        """See `Places.folder`."""
        return copy / split


@dataclass(frozen=True)
class Nnunet:
    """`imagesTr/CASE_0000.nii.gz` and `labelsTr/CASE.nii.gz`, and the same with `Ts` for a test split.

    Attributes:
        keep_names: see `Pairs`.
    """

    keep_names: bool

    def of(self, split: str, source: NiftiVolumes, number: int) -> tuple[str, str]:
        """See `Places.of`."""
        own = stem_of(PurePosixPath(source.files[number]).name).removesuffix(FIRST_CHANNEL)
        case = own if self.keep_names else f"{'test' if split == 'test' else 'case'}_{number:06d}"
        images, masks = NNUNET_FOLDERS[split or "train"]
        return f"{images}/{case}{FIRST_CHANNEL}{_COMPRESSED}", f"{masks}/{case}{_COMPRESSED}"

    def folder(self, copy: Path, split: str) -> Path:
        """See `Places.folder`."""
        return copy


@dataclass(frozen=True)
class VolumeWriter:
    """Writes volumes and masks.

    Attributes:
        places: where they go.
        bound: how far stored values of a volume may have moved.
    """

    places: Places
    bound: NativeBound

    def write(
        self, folder: Path, split: str, source: Source, publish: PublishNative | None, compare: Compare
    ) -> Iterator[Record]:
        """Write the volumes of a split and their masks, and yield the records of both; see `DicomWriter.write`."""
        assert isinstance(source, NiftiVolumes), source.kind
        copy = self.places.folder(folder, split)
        for number, file in enumerate(source.files):
            image, mask = self.places.of(split, source, number)
            pairs = published_frames(source, number, publish)
            volume = source.volume(source.folder / file)
            values = as_voxels(pairs[0][1].pixels[0], volume.values.shape) if pairs else volume.values
            write_volume(copy / image, volume, values)
            record = with_numbers(Record(split, file, image, bool(pairs), "", {}), pairs, compare, self.bound)
            yield record
            if source.mask_files is not None:
                own = source.mask_files[number]
                copy_volume(source.folder / own, copy / mask)
                yield Record(split, own, mask, False, f"{MASK}: {NOTE}", {}, excluded=True)


def nnunet_error(source: Source) -> str | None:
    """Why nnU-Net's layout cannot hold samples, or None."""
    if not isinstance(source, NiftiVolumes):
        return "nnU-Net's layout is for NIfTI volumes, each a sample"
    if source.split not in ("all", *NNUNET_FOLDERS):
        return f"nnU-Net's layout has no folder for a split {source.split}"
    masks = source.masks
    if not isinstance(masks, VolumeMasks):
        return None if source.split == "test" else "nnU-Net's layout is for volumes with masks, and there are none"
    values = masks.values
    if values != tuple(range(len(values))):
        shown = ", ".join(map(str, values))
        return f"nnU-Net needs masks that hold 0, 1, 2, ..., and these hold {shown}, which stay as they are"
    return None


def write_class_list(folder: Path, sources: Mapping[str, Source]) -> None:
    """Write the names of the classes of masks next to `images` and `masks`, where the source has some."""
    masks = _masks(sources)
    if masks is not None and (names := masks.layout.names()) is not None:
        with create(folder / CLASSES) as file:
            file.write(class_list(names))


def write_description(folder: Path, sources: Mapping[str, Source], records: Sequence[Record]) -> None:
    """Write `dataset.json`, as nnU-Net reads it, and with the lists that MONAI reads.

    Args:
        folder: the copy.
        sources: by split; "" for none.
        records: what became of each file.
    """
    masks = _masks(sources)
    assert masks is not None, "`nnunet_error` has checked it"
    names = masks.layout.names() or dict(zip(masks.values, masks.names, strict=True))
    lists = {split: _entries(split, records) for split in sources}
    training = next((entries for split, entries in lists.items() if split != "test"), [])
    description = {
        "channel_names": {"0": "image"},
        "labels": {_label(name): number for number, name in names.items()},
        "numTraining": len(training),
        "file_ending": _COMPRESSED,
        "training": training,
        **({"test": lists["test"]} if "test" in lists else {}),
    }
    with create(folder / DESCRIPTION) as file:
        file.write(json.dumps(description, indent=2).encode())


def _entries(split: str, records: Sequence[Record]) -> list[dict[str, str]]:
    own = [record for record in records if record.split == split and record.published]
    masks = {stem_of(PurePosixPath(one.published).name): one.published for one in own if one.excluded}
    entries = []
    for record in own:
        if not record.excluded:
            case = stem_of(PurePosixPath(record.published).name).removesuffix(FIRST_CHANNEL)
            label = {"label": masks[case]} if case in masks else {}
            entries.append({"image": record.published, **label})
    return entries


def _label(name: str) -> str:
    """The name of a class for nnU-Net, which calls what does not count `ignore`."""
    return "ignore" if name.lower() in VOID_NAMES else name


def _masks(sources: Mapping[str, Source]) -> VolumeMasks | None:
    return next((one.masks for one in sources.values() if isinstance(one.masks, VolumeMasks)), None)
