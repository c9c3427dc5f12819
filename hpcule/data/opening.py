"""How DATA is opened: the settings that decide which samples there are and what they look like."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import DataError, UsageError
from hpcule.config.ranges import check_ranges, setting

if TYPE_CHECKING:
    from hpcule.data.source import Source

_SIZES = ("image_size", "tile_size", "clip_length")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The settings that data are opened with; configurations of crafts and trainings extend it.

    Raises:
        ValueError: a setting is out of range, or several sizes are given.
    """

    image_size: int | None = setting(None, at_least=4, at_most=4096, words="4 to 4096")
    """Resize every image to this height and width in pixels, and publish at that size."""
    tile_size: int | None = setting(None, at_least=4, at_most=4096, words="4 to 4096")
    """Cut every image into tiles of this height and width, each a sample, and publish whole images as they were."""
    clip_length: int | None = setting(None, at_least=1, at_most=2**31, words="1 to 2^31")
    """Cut and pad every recording to this number of samples, and publish at most those; None: as long as the
    longest."""
    volumes: bool = False
    """Take every NIfTI volume and every DICOM series whole, as one sample, instead of each of its slices. NIfTI volumes
    with masks are whole anyway."""
    dicom_labels: tuple[str, ...] = ()
    """Keywords of DICOM elements whose values are labels, such as PatientSex: one for the class of each sample, several
    for several labels each."""
    skip_unreadable: bool = False
    """Leave out files that cannot be decoded instead of failing."""
    exclude: tuple[str, ...] = ()
    """Patterns of files in a folder that are no samples, such as `*_mask.png`; `*` matches any text. `export` copies
    them without a perturbation, if it writes a folder of files."""
    subset: int | None = setting(None, at_least=2)
    """Number of images or recordings to take, spread evenly over the data; None: all. Test samples are all taken."""

    def __post_init__(self) -> None:
        """Check ranges, and that at most one size is given."""
        check_ranges(self)
        given = [name for name in _SIZES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)}: image_size and tile_size are for images, clip_length for recordings; "
                "give one of them"
            )

    @property
    def working_size(self) -> int | None:
        """Height and width of images in pixels, or length of recordings, that samples are brought to; None: as they
        are."""
        return self.image_size or self.tile_size or self.clip_length

    @property
    def opening(self) -> Opening:
        """These settings alone, without those of a configuration that extends them."""
        return Opening(**{field.name: getattr(self, field.name) for field in fields(Opening)})

    def source(self, data: str, split: str | None = None, *, root: Path | None = None) -> Source:
        """Open samples of DATA.

        Args:
            data: a path or a name, with an optional `:SPLIT`; see `hpcule.data.find.find_data`.
            split: the split, whatever DATA says; None: that of DATA, or "train".
            root: where named sets are kept; default ~/.cache/hpcule/data.

        Raises:
            UsageError: nothing has this path or name, or a setting does not apply to these data.
            DataError: the data have no such split, or cannot be used as they are.
        """
        return self._opened(data, split, "train", root)

    def test(self, data: str, test: str | None) -> Source:
        """Open test samples: those of `test`, or the test split of DATA where no other data are named.

        Other data without splits are taken whole. `subset` does not apply to test samples, and `exclude` applies to
        files.

        Raises:
            UsageError: see `source`.
            DataError: see `source`.
        """
        from hpcule.data.find import Reading, find_data

        whole = replace(self.opening, subset=None)
        if test is None:
            return whole.source(data, "test")
        if not find_data(test, Reading()).files:
            whole = replace(whole, exclude=())
        undivided = test != data and whole.splits(test) == ("all",)
        return whole._opened(test, None, "all" if undivided else "test", None)

    def splits(self, data: str, *, root: Path | None = None) -> tuple[str, ...]:
        """Splits of DATA: some of train, val, test, or "all".

        Raises:
            UsageError: nothing has this path or name.
            DataError: the data cannot be used as they are.
        """
        from hpcule.data.find import Reading, find_data

        return find_data(data, Reading(volumes=self.volumes, exclude=self.exclude), root).splits()

    def _opened(self, data: str, split: str | None, default: str, root: Path | None) -> Source:
        from hpcule.data.find import Reading, find_data
        from hpcule.data.resize import Resized
        from hpcule.data.subset import Subset
        from hpcule.data.tiles import Tiles

        reading = Reading(
            image_size=self.image_size or self.tile_size,
            clip_length=self.clip_length,
            volumes=self.volumes,
            dicom_labels=self.dicom_labels,
            skip_unreadable=self.skip_unreadable,
            exclude=self.exclude,
        )
        found = find_data(data, reading, root)
        if self.exclude and not found.files:
            raise UsageError(
                f"exclude={list(self.exclude)}: {data} is no folder of images, DICOM, NIfTI, WAV or FLAC files, so it "
                "has no files to exclude; leave it out"
            )
        source = found.open(_choose(data, found.splits(), split or found.split or default))
        self._check_kind(source)
        if self.subset is not None:
            source = Subset(source, self.subset)
        if self.tile_size is not None:
            return Tiles(source, self.tile_size)
        if self.image_size is None or source.shape[1:] == (self.image_size, self.image_size):
            return source
        return Resized(source, self.image_size)

    def _check_kind(self, source: Source) -> None:
        """Refuse a size of images for recordings, and the other way round."""
        if self.volumes and source.depth is None:
            raise UsageError(
                f"volumes=true: {source.name} holds no volumes; it is for folders of NIfTI or DICOM files: leave it out"
            )
        if self.dicom_labels and source.kind != "dicom":
            raise UsageError(
                f"dicom_labels={list(self.dicom_labels)}: {source.name} holds no DICOM files: leave it out"
            )
        if source.depth is not None and (self.image_size or self.tile_size):
            raise UsageError(
                f"image_size and tile_size are for images, and {source.name} holds volumes, with masks or with "
                "volumes=true: leave the size out, and resample volumes of different sizes first"
            )
        names = ("clip_length",) if source.rate is None else ("image_size", "tile_size")
        noun = "images" if source.rate is None else "recordings"
        for name in names:
            if (value := getattr(self, name)) is not None:
                raise UsageError(
                    f"{name}={value}: {source.name} holds {noun}; image_size and tile_size are for images, clip_length "
                    "for recordings"
                )


def _choose(data: str, splits: tuple[str, ...], wanted: str) -> str:
    if wanted in splits:
        return wanted
    if splits == ("all",):
        if wanted == "train":
            return "all"
        raise DataError(f"{data} has no splits, so no '{wanted}': name other data for it, such as --test DATA")
    raise DataError(f"{data} has no split '{wanted}', only {', '.join(splits)}: write DATA:SPLIT, or name other data")
