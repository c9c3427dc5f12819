"""Collections of DICOM files: a folder a class (under train, val, test or not), with studies and series below, or none.

What a network learns from is what a viewer shows: each frame after the modality's transform and the window, in 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.data.source import Native
from hpcule.data.sources.frames import FrameSource
from hpcule.data.sources.image_file import ENDINGS as IMAGES
from hpcule.data.sources.layout import files_below
from hpcule.data.sources.nested import Nested

ENDINGS = (".dcm", ".dicom", ".ima")
_MAGIC_AT, _MAGIC = 128, b"DICM"
_NOUN = f"DICOM files; valid are names that end in {', '.join(ENDINGS)}, or files without an ending that begin as DICOM"


def holds_dicom(root: Path, exclude: tuple[str, ...] = ()) -> bool:
    """Whether the first file below a folder that is an image, a recording or a DICOM file is one of the last."""
    for path in files_below(root, exclude):
        if is_dicom(path):
            return True
        if path.name.lower().endswith((*IMAGES, ".wav", ".flac")):
            return False
    return False


def is_dicom(path: Path) -> bool:
    """Whether a file's ending says that it is DICOM, or, where it has none, its first bytes; directories are not.

    A number behind the last dot is no ending: files are called after UIDs.
    """
    if path.suffix.lower() in ENDINGS:
        return True
    if path.name.upper() == "DICOMDIR" or (path.suffix and not path.suffix[1:].isdigit()) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def dicom_splits(root: Path, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Splits of a folder of DICOM files: its sub-folders if they are all called train, val or test, else "all"."""
    return _nested(root, exclude).splits()


class DicomSource(FrameSource):
    """Every frame of every file; see `FrameSource`. Where a first folder is called after a patient, no labels.

    Attributes:
        seen: of each file, the stored values that are shown black and white where it does not say so itself.
    """

    name = "dicom"
    kind = "dicom"

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
    ) -> None:
        """List the files and read their headers; those without a window are decoded.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            image_size: resize each frame to this height and width; None needs frames of one size.
            skip_unreadable: decode each file once now, and leave out those that cannot be decoded.
            exclude: patterns of files that are no samples; see `is_excluded`.

        Raises:
            DataError: no files, a damaged one, one of an unknown compression, different sizes, a link that leads out.
            UsageError: pydicom is not installed.
        """
        try:
            from hpcule.data.sources.dicom_file import read_frame, read_head, read_patient
        except ImportError:
            raise UsageError(f"{root} holds DICOM files: pip install 'hpcule[dicom]'") from None
        self._read_frame, self._read_patient = read_frame, read_patient
        read = partial(read_head, decode=skip_unreadable)
        heads = self._take(_nested(root, exclude), split, image_size, read, skip_unreadable)
        self.seen = [head.seen for head in heads]
        self.declared = [head.declared for head in heads]
        patients = frozenset[str]().union(*(head.patient for head in heads))
        if _plain(self.class_names or ()) & _plain(patients):
            self.labels = self.class_names = None

    def patient(self, file: int) -> str:
        """Whose file it is, by what identifies the patient: this is as private as the file.

        Raises:
            DataError: the file cannot be read.
        """
        return self._read_patient(self.folder / self.files[file])

    def stored(self, file: int, seen: tuple[int, int] | None) -> Native:
        """The first frame of a file, shown from one stored value to another where it has no window of its own."""
        return self._read_frame(self.folder / self.files[file], 0, seen)

    def frame(self, file: int, number: int) -> Native:
        """See `FrameSource.frame`."""
        return self._read_frame(self.folder / self.files[file], number, self.seen[file])


def _nested(root: Path, exclude: tuple[str, ...]) -> Nested:
    return Nested(root, is_dicom, _NOUN, exclude)


def _plain(names: Iterable[str]) -> set[str]:
    """Letters and digits alone, in lower case: DOE^JOHN is Doe_John."""
    return {"".join(filter(str.isalnum, name)).casefold() for name in names}
