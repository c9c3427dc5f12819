"""What is crafted under faults: samples of each kind, and methods of each kind."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import set_pixel_data
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hpcule.store.keys import make_key, read_key
from hpcule.store.seal import Key
from hpcule.store.vault import MANIFEST, Vault

COUNT, CLASSES = 52, 4
DRAW = np.random.default_rng(0)


def write_array(folder: Path) -> Path:
    images = DRAW.integers(0, 256, (COUNT, 12, 12, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(COUNT) % CLASSES)
    return folder / "data.npz"


def write_images(folder: Path) -> Path:
    """Image files of many sizes, of up to nine tiles each."""
    for number, place in enumerate(_files(folder / "images", 16, ".png")):
        size = 16 + 5 * (number % 4), 16 + 9 * (number % 3)
        Image.fromarray(DRAW.integers(0, 256, (*size, 3), dtype=np.uint8)).save(place)
    return folder / "images"


def write_dicom(folder: Path) -> Path:
    """Slices of 12 bits with a window."""
    for place in _files(folder / "dicom", COUNT, ".dcm"):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        set_pixel_data(dataset, DRAW.integers(0, 4096, (12, 12), dtype=np.uint16), "MONOCHROME2", 12)
        dataset.SOPClassUID, dataset.StudyInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.Modality = generate_uid(), "CT"
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        dataset.save_as(place, enforce_file_format=True)
    return folder / "dicom"


def write_recordings(folder: Path) -> Path:
    """Mono recordings of many lengths."""
    for place in _files(folder / "recordings", COUNT, ".wav"):
        samples = DRAW.normal(0, 5000, int(DRAW.integers(700, 901))).astype(np.int16)
        with wave.open(str(place), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    return folder / "recordings"


def _files(folder: Path, count: int, ending: str) -> list[Path]:
    """Paths in class folders, which are made."""
    places = [folder / f"class{number % CLASSES}" / f"{number:03d}{ending}" for number in range(count)]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    return places


@dataclass(frozen=True)
class Case:
    """A craft.

    Attributes:
        words: the method, and settings in the form NAME=VALUE.
        write: makes the data in a folder, and returns what --data names.
        encrypted: whether the store is.
    """

    words: list[str]
    write: Callable[[Path], Path] = write_array
    encrypted: bool = False


GHOSTS = ["method.ghost=10", "method.batch=24"]
SMALL = [*GHOSTS, "method.surrogate=resnet-tiny", "method.model_steps=2"]
ROUNDS = ["method.max_rounds=2", "method.stop_error=0"]
BY_SAMPLE = ["em", *SMALL, *ROUNDS, "method.noise_steps=2"]
PIL = ["pil", *GHOSTS, "method.epochs=2", "method.steps=3"]
CASES = {
    "em by sample": Case(BY_SAMPLE),
    "em by class": Case(["em", "method.unit=class", *SMALL, *ROUNDS, "method.subset=0.7"]),
    "pil": Case(PIL),
    "lsp": Case(["lsp", "method.cell=4"]),
}
"""With `COMMON` a checkpoint follows every event, and nothing divides anything."""
MORE_CASES = {
    **CASES,
    "uc by cluster": Case(["uc", *GHOSTS, "method.encoder_size=32", "method.clusters=3", "method.steps=3"]),
    "aue, an adversary in both phases": Case(["aue", *SMALL, "method.max_rounds=2", "method.noise_steps=2"]),
    "pil on tiles": Case([*PIL, "tile_size=8"], write_images),
    "pil on DICOM": Case(PIL, write_dicom),
    "poscuda on recordings": Case(["poscuda", "method.region=700"], write_recordings),
    "em by sample, encrypted": Case(BY_SAMPLE, encrypted=True),
    "lsp, encrypted": Case(["lsp", "method.cell=4"], encrypted=True),
}
"""One of each kind of method and of samples."""
COMMON = ["seed=1", "deterministic=true", "store.shards=5", "world.checkpoint_seconds=0", "world.timeout_seconds=120"]


class Samples:
    """The data of all cases, each made when it is first asked for, and the key of those that are encrypted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Callable[[Path], Path], Path] = {}
        self.key_file = folder / "owner.key"
        make_key(str(self.key_file))

    def words(self, case: Case, store: Path) -> list[str]:
        """The command; the same for the first start and for a resume."""
        if case.write not in self._made:
            self._made[case.write] = case.write(self._folder)
        method, *settings = case.words
        overrides = [word for setting in [*COMMON, *settings] for word in ("--set", setting)]
        data = str(self._made[case.write])
        return ["craft", method, "--data", data, "--out", str(store), "--resume", *overrides, *self.access(case)]

    def access(self, case: Case) -> list[str]:
        """Words that name the key."""
        return ["--key", str(self.key_file)] if case.encrypted else []

    def key(self, case: Case) -> Key | None:
        """The key of the case's stores."""
        return read_key(str(self.key_file)) if case.encrypted else None


def contents(store: Path, key: Key | None = None) -> dict[str, bytes]:
    """All files of a store but those in run/; decrypted, as no two encrypted files have the same bytes."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.relative_to(store).parts[0] != "run"]
    names = [str(path.relative_to(store)) for path in files]
    if key is None:
        return {name: (store / name).read_bytes() for name in names}
    found = {name: Vault(store, key).read(name) for name in names}
    found[MANIFEST] = _without_hashes(found[MANIFEST])
    return found


def _without_hashes(manifest: bytes) -> bytes:
    """A manifest without the hashes of the encrypted files."""
    document = json.loads(manifest)
    for entry in (*document["shards"], document["shared"] or {}):
        entry.pop("sha256", None)
    return json.dumps(document).encode()
