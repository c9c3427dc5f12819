"""How volumes and masks lie in folders: `images` and `masks`, nnU-Net's layout, MONAI's list, or volumes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple, Protocol

from hpcule.config.errors import DataError, one_line
from hpcule.data.annotations import VOID
from hpcule.data.source import Labels
from hpcule.data.sources.layout import Layout, is_excluded
from hpcule.data.sources.mask_files import IMAGES, MASKS, MaskedLayout, listed_classes, stem_of
from hpcule.data.sources.nested import Nested
from hpcule.data.sources.nifti import ENDINGS

DESCRIPTION = "dataset.json"
"""File that describes a collection in nnU-Net's layout or in MONAI's."""
NNUNET_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
"""Folders of images and of masks in nnU-Net's layout, by split."""
FIRST_CHANNEL = "_0000"
"""What nnU-Net puts behind the name of a case with one channel."""
_LISTS = {"train": ("training",), "val": ("validation",), "test": ("test", "testing")}
"""Names of MONAI's lists, by split."""
_NOUN = "NIfTI volumes"
_MOST_BYTES = 1 << 26


class VolumeLayout(Protocol):
    """Which volumes a collection has, and where their masks are.

    Attributes:
        format: that of a copy by default.
    """

    format: ClassVar[str]

    def splits(self) -> tuple[str, ...]:
        """See `Layout.splits`."""

    def folder(self, split: str) -> Path:
        """Where the files of a split are."""

    def scan(self, split: str) -> list[str]:
        """Paths of the volumes of a split below its folder, in the order of their ids.

        Raises:
            DataError: there are none, or they lie otherwise than the layout says.
        """

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`."""

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """See `Layout.ignored`."""

    def classes(self, split: str, files: list[str]) -> tuple[Labels, tuple[str, ...]] | tuple[None, None]:
        """See `Nested.classes`."""

    def masks(self, split: str, files: Sequence[str]) -> list[str] | None:
        """The masks of volumes, in their order, below the folder of the split; None where there are none.

        Raises:
            DataError: a volume has none.
        """

    def every_mask(self) -> list[Path]:
        """The masks of all splits."""

    def names(self) -> Mapping[int, str] | None:
        """Names of classes by the number that masks hold; None where nothing says.

        Raises:
            DataError: the list of classes cannot be read.
        """

    @property
    def names_file(self) -> Path:
        """The file with the names of the classes, which need not be there."""


def volume_layout(root: Path, exclude: tuple[str, ...], *, alone: bool) -> VolumeLayout | None:
    """The layout of a folder of volumes; None for a folder of volumes without masks unless `alone`."""
    if (root / NNUNET_FOLDERS["train"][0]).is_dir() or (root / DESCRIPTION).is_file():
        return listed_volumes(root, exclude)
    pairs = _Pairs(root, ENDINGS, _NOUN, exclude)
    folders = [pairs.folder(split) for split in pairs.splits()]
    if all((folder / IMAGES).is_dir() and (folder / MASKS).is_dir() for folder in folders):
        return PairedVolumes(pairs)
    return LooseVolumes(root, exclude) if alone else None


class LooseVolumes(Nested):
    """Volumes without masks, at any depth."""

    format: ClassVar[str] = "nifti"

    def __init__(self, root: Path, exclude: tuple[str, ...]) -> None:
        super().__init__(root, lambda path: path.name.lower().endswith(ENDINGS), _NOUN, exclude)

    def masks(self, split: str, files: Sequence[str]) -> None:
        """See `VolumeLayout.masks`."""

    def every_mask(self) -> list[Path]:
        """See `VolumeLayout.every_mask`."""
        return []

    def names(self) -> None:
        """See `VolumeLayout.names`."""

    @property
    def names_file(self) -> Path:
        """See `VolumeLayout.names_file`."""
        return self._layout.root / DESCRIPTION


class _Pairs(MaskedLayout):
    """Volumes below `images` and masks below `masks`."""

    @property
    def endings_of_masks(self) -> tuple[str, ...]:
        """See `MaskedLayout.endings_of_masks`."""
        return ENDINGS


@dataclass(frozen=True)
class PairedVolumes:
    """Volumes below `images` and masks of the same names below `masks`, in the folder of each split or of all."""

    format: ClassVar[str] = "nifti"
    pairs: _Pairs

    def splits(self) -> tuple[str, ...]:
        """See `Layout.splits`."""
        return self.pairs.splits()

    def folder(self, split: str) -> Path:
        """See `VolumeLayout.folder`."""
        return self.pairs.folder(split)

    def scan(self, split: str) -> list[str]:
        """See `VolumeLayout.scan`."""
        return self.pairs.scan(split)

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`; masks are written with their volumes."""
        return [file for file in self.pairs.excluded(split) if not file.startswith(f"{MASKS}/")]

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """See `Layout.ignored`."""
        return self.pairs.ignored(split, files)

    def classes(self, split: str, files: list[str]) -> tuple[Labels, tuple[str, ...]] | tuple[None, None]:
        """See `Nested.classes`."""
        return self.pairs.classes(files, split)

    def masks(self, split: str, files: Sequence[str]) -> list[str]:
        """See `VolumeLayout.masks`."""
        known, found = self.pairs.masks(split), []
        for file in files:
            name = stem_of(file.removeprefix(self.pairs.below))
            if name not in known:
                raise DataError(
                    f"{self.folder(split) / file} has no mask {self.folder(split) / MASKS / name}{ENDINGS[1]}; add it, "
                    "or leave the volume out with exclude"
                )
            found.append(f"{MASKS}/{known[name]}")
        return found

    def every_mask(self) -> list[Path]:
        """See `VolumeLayout.every_mask`."""
        places = ((self.folder(split) / MASKS, self.pairs.masks(split)) for split in self.splits())
        return [folder / file for folder, files in places for file in files.values()]

    def names(self) -> Mapping[int, str] | None:
        """See `VolumeLayout.names`."""
        return listed_classes(self.names_file) if self.names_file.exists() else None

    @property
    def names_file(self) -> Path:
        """See `VolumeLayout.names_file`."""
        return self.pairs.classes_file


class Case(NamedTuple):
    """A volume and its mask, by their paths below the root; "" for no mask."""

    image: str
    mask: str


@dataclass(frozen=True)
class ListedVolumes:
    """Volumes whose splits are lists rather than folders.

    Attributes:
        root: the folder of all files.
        cases: by split, those that `exclude` leaves.
        left: by split, volumes that it leaves out.
        described: names of the classes by number, as the description says; None where it says nothing.
        exclude: patterns of files that are no samples.
    """

    format: ClassVar[str] = "nnunet"
    root: Path
    cases: Mapping[str, Sequence[Case]]
    left: Mapping[str, Sequence[str]]
    described: Mapping[int, str] | None
    exclude: tuple[str, ...] = field(default=(), kw_only=True)

    def splits(self) -> tuple[str, ...]:
        """See `Layout.splits`."""
        return tuple(self.cases)

    def folder(self, split: str) -> Path:
        """See `VolumeLayout.folder`."""
        return self.root

    def scan(self, split: str) -> list[str]:
        """See `VolumeLayout.scan`."""
        if not self.cases[split]:
            raise DataError(f"{self.root} holds no {_NOUN} of the split {split}; add some, or exclude fewer")
        return [case.image for case in self.cases[split]]

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`."""
        return [*self.left[split]]

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """See `Layout.ignored`; files of no split are those of the first."""
        if split != self.splits()[0]:
            return []
        known = {DESCRIPTION, *(file for left in self.left.values() for file in left)}
        known |= {file for cases in self.cases.values() for case in cases for file in case}
        everything = Layout(self.root, ("",), _NOUN, self.exclude).ignored("all", files)
        return [file for file in everything if file not in known]

    def classes(self, split: str, files: list[str]) -> tuple[None, None]:
        """See `Nested.classes`."""
        return None, None

    def masks(self, split: str, files: Sequence[str]) -> list[str] | None:
        """See `VolumeLayout.masks`."""
        masks = {case.image: case.mask for case in self.cases[split]}
        if not any(masks.values()):
            return None
        for file in files:
            if not masks[file]:
                raise DataError(f"{self.root / file} has no mask, and others have; add it, or leave the volume out")
        return [masks[file] for file in files]

    def every_mask(self) -> list[Path]:
        """See `VolumeLayout.every_mask`."""
        return [self.root / case.mask for cases in self.cases.values() for case in cases if case.mask]

    def names(self) -> Mapping[int, str] | None:
        """See `VolumeLayout.names`."""
        return self.described

    @property
    def names_file(self) -> Path:
        """See `VolumeLayout.names_file`."""
        return self.root / DESCRIPTION


def listed_volumes(root: Path, exclude: tuple[str, ...]) -> ListedVolumes | None:
    """Volumes in nnU-Net's layout, or in MONAI's list; None where a folder is neither.

    Raises:
        DataError: the description cannot be read, or a case has several channels, or lies outside of the folder.
    """
    path = root / DESCRIPTION
    description = _described(path) if path.exists() else {}
    layout = Layout(root, ENDINGS, _NOUN)
    folder = root / NNUNET_FOLDERS["train"][0]
    names = layout.listed(folder)[1] if folder.is_dir() else []
    numbered = any(stem_of(name).endswith(FIRST_CHANNEL) for name in names)
    if numbered or (names and "training" not in description):
        splits = {split: _nnunet_cases(layout, *folders) for split, folders in NNUNET_FOLDERS.items()}
    elif isinstance(description.get("training"), list):
        splits = {split: _listed_cases(path, description, keys) for split, keys in _LISTS.items()}
    else:
        return None
    splits = {split: cases for split, cases in splits.items() if cases}
    kept = {split: [case for case in cases if not _leaves_out(root, case, exclude)] for split, cases in splits.items()}
    left = {split: [one.image for one in cases if one not in kept[split]] for split, cases in splits.items()}
    return ListedVolumes(root, kept, left, class_names(path, description.get("labels")), exclude=exclude)


def class_names(path: Path, labels: object) -> Mapping[int, str] | None:
    """Names of classes by number, from nnU-Net's `labels` (numbers by name) or those of older lists (names by number).

    Raises:
        DataError: they are neither.
    """
    if labels is None:
        return None
    try:
        if not isinstance(labels, dict):
            raise ValueError("no object")
        if all(isinstance(number, int) for number in labels.values()):
            classes = {int(number): one_line(str(name)) for name, number in labels.items()}
        else:
            classes = {int(number): one_line(name) for number, name in labels.items() if isinstance(name, str)}
        if len(classes) < len(labels) or len(set(classes.values())) < len(labels) or len(classes) < 2:
            raise ValueError("each class needs one number and one name of its own, regions of several are not read")
        if not all(0 <= number <= VOID for number in classes):
            raise ValueError("numbers go from 0 to 255")
    except ValueError as error:
        raise DataError(f'{path}: "labels" names no classes ({error}); valid is {{"background": 0, ...}}') from None
    return classes


def _described(path: Path) -> Mapping[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("no file of a description's size")
        description = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(description, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from None
    return description


def _nnunet_cases(layout: Layout, images: str, masks: str) -> list[Case]:
    """Volumes of a folder and the masks of another, which need not be there."""
    root = layout.root
    if not (root / images).is_dir():
        return []
    known = {stem_of(name): name for name in (layout.listed(root / masks)[1] if (root / masks).is_dir() else [])}
    cases = []
    for name in layout.listed(root / images)[1]:
        case, underscore, channel = stem_of(name).rpartition("_")
        if not (underscore and len(channel) == 4 and channel.isdigit()):
            raise DataError(
                f"{root / images / name}: nnU-Net's names end in the number of a channel, as in "
                f"{stem_of(name)}{FIRST_CHANNEL}{ENDINGS[1]}; rename it"
            )
        if channel != FIRST_CHANNEL[1:]:
            raise DataError(
                f"{root / images / name}: {case} has several channels, and hpcule reads volumes of one; keep one of "
                f"them, named {case}{FIRST_CHANNEL}{ENDINGS[1]}"
            )
        mask = known.get(case, "")
        cases.append(Case(f"{images}/{name}", mask and f"{masks}/{mask}"))
    return cases


def _listed_cases(path: Path, description: Mapping[str, Any], keys: Sequence[str]) -> list[Case]:
    entries: object = next((description[key] for key in keys if key in description), [])
    if not isinstance(entries, list):
        raise DataError(f'{path}: "{keys[0]}" is no list; valid is [{{"image": ..., "label": ...}}, ...]')
    cases = []
    for entry in entries:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image, mask = pair.get("image"), pair.get("label", "")
        if not isinstance(image, str) or not isinstance(mask, str):
            raise DataError(
                f'{path}: an entry of "{keys[0]}" is {one_line(str(entry))[:60]}; valid is {{"image": FILE, "label": '
                "FILE}, with volumes of one channel in one file"
            )
        cases.append(Case(_inside(path, image), mask and _inside(path, mask)))
    return cases


def _inside(path: Path, file: str) -> str:
    """A path below the folder of a description.

    Raises:
        DataError: it leads out of it, or to no volume.
    """
    root, place = path.parent, PurePosixPath(file)
    if not (root / place).resolve().is_relative_to(root.resolve()) or ".." in place.parts or place.is_absolute():
        raise DataError(f"{path}: {one_line(file)[:80]} leads out of {root}; put the file itself there")
    if not (root / place).is_file() or not file.lower().endswith(ENDINGS):
        raise DataError(f"{path}: {one_line(file)[:80]} is no file that ends in {' or '.join(ENDINGS)}; add it")
    return place.as_posix()


def _leaves_out(root: Path, case: Case, exclude: tuple[str, ...]) -> bool:
    return is_excluded(root / case.image, root, exclude)
