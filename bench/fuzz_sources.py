"""Valid files of every kind of data, each of which is changed, and what reads them whole."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import soundfile
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import set_pixel_data
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)
from scipy.io import savemat

from hpcule.data.opening import Opening
from hpcule.publish.dicom import DicomWriter
from hpcule.publish.excluded import CopyFile, copy_image, copy_recording

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


Make = Callable[[Path], Path]
"""A function that writes a valid input into a folder and returns the file to be changed."""


@dataclass(frozen=True)
class Parser:
    """What writes an input that is valid, or is refused for what it holds, and what reads its folder whole."""

    make: Make
    read: Callable[[Path], object]
    text: bool = False
    valid: bool = True


def read_source(folder: Path) -> None:
    """All samples and labels of the data in a folder, or of the file that is alone in it."""
    files = list(folder.iterdir())
    alone = len(files) == 1 and files[0].suffix in (".npz", ".h5")
    source = Opening().source(str(files[0] if alone else folder))
    samples = source.read(np.arange(len(source)))
    assert samples.shape == (len(source), *source.shape), samples.shape
    assert samples.dtype == source.dtype, samples.dtype
    assert source.labels is None or (source.labels.min() >= 0 and source.labels.max() < source.class_count)


def make_npz(compressed: bool) -> Make:
    def make(folder: Path) -> Path:
        save = np.savez_compressed if compressed else np.savez
        save(folder / "data.npz", images=IMAGES, labels=LABELS)
        return folder / "data.npz"

    return make


def make_hdf5(**settings: object) -> Make:
    def make(folder: Path) -> Path:
        with h5py.File(folder / "data.h5", "w") as file:
            file.create_dataset("images", data=IMAGES, **settings).attrs["layout"] = "NHWC"
            file["labels"] = LABELS
        return folder / "data.h5"

    return make


def make_idx(ending: str) -> Make:
    def make(folder: Path) -> Path:
        images = b"\0\0\x08\x03" + struct.pack(">3I", 12, 8, 8) + IMAGES[..., 0].tobytes()
        path = folder / f"train-images-idx3-ubyte{ending}"
        path.write_bytes(gzip.compress(images, mtime=0) if ending else images)
        return path

    return make


def make_images(ending: str, **settings: Any) -> Make:
    def make(folder: Path) -> Path:
        for number in range(3):
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(IMAGES[number]).save(folder / f"{number}{ending}", exif=exif, **settings)
        return folder / f"1{ending}"

    return make


def make_wav(folder: Path) -> Path:
    for number in range(3):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(IMAGES[number].tobytes())
    return folder / "1.wav"


def make_recordings(kind: str, subtype: str) -> Make:
    """Stereo recordings as libsndfile writes them."""

    def make(folder: Path) -> Path:
        ending = ".flac" if kind == "FLAC" else ".wav"
        for number in range(3):
            samples = IMAGES[number].astype(np.int16).reshape(-1, 2) << 6
            soundfile.write(folder / f"{number}{ending}", samples, 8000, format=kind, subtype=subtype)
        return folder / f"1{ending}"

    return make


def make_palette(folder: Path) -> Path:
    """A mask: class numbers with colours to show them in."""
    Image.fromarray(IMAGES[0]).quantize(8).save(folder / "mask.png")
    return folder / "mask.png"


def copied(file: str, copy: CopyFile) -> Callable[[Path], None]:
    """What copies an excluded file into a published collection."""

    def read(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as out:
            copy(folder / file, Path(out) / file)

    return read


def make_dicom(syntax: str, frames: int = 1, **tags: object) -> Make:
    """An image or a film of 16 bits, with a window and a palette of a patient's tags."""

    def make(folder: Path) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pixels = IMAGES[:frames, ..., 0].astype(np.int16) * 4
        if frames > 1:
            dataset.NumberOfFrames = frames
        set_pixel_data(dataset, pixels if frames > 1 else pixels[0], "MONOCHROME2", 12)
        dataset.SOPClassUID, dataset.StudyInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.PatientName, dataset.PatientID = generate_uid(), "Doe^John", "4711"
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
        for name, value in tags.items():
            setattr(dataset, name, value)
        if syntax == JPEGBaseline8Bit:
            encapsulated(dataset, "JPEG", syntax)
        elif syntax == JPEG2000Lossless:
            encapsulated(dataset, "JPEG2000", syntax, no_jp2=True)
        elif syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax)
        dataset.save_as(folder / "1.dcm", enforce_file_format=True)
        return folder / "1.dcm"

    return make


def encapsulated(dataset: Dataset, kind: str, syntax: str, **settings: Any) -> None:
    """Put two images of 8 bits in place of the pixels, each compressed by Pillow."""
    frames = []
    for pixels in IMAGES[:2, ..., 0]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **settings)
        frames.append(file.getvalue() + b"\0" * (file.tell() % 2))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.NumberOfFrames, dataset.PixelData = len(frames), encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True


def read_dicom(folder: Path) -> None:
    """All frames, and the file as it would be published."""
    read_source(folder)
    source = Opening().source(str(folder))
    with tempfile.TemporaryDirectory() as copy:
        writer = DicomWriter("basic-deidentify", lambda native: 8)
        list(writer.write(Path(copy), "", source, lambda sample, native: native, lambda before, after: {}))


def make_nifti(ending: str, kind: Any = nibabel.Nifti1Image) -> Make:
    def make(folder: Path) -> Path:
        image: Any = kind(IMAGES[:4, ..., 0].transpose(2, 1, 0).astype(np.int16), np.eye(4))
        image.header.set_slope_inter(2.0, -10.0)
        nibabel.save(image, folder / f"1{ending}")
        return folder / f"1{ending}"

    return make


def make_pets(folder: Path) -> Path:
    """Two of Oxford-IIIT Pets, as published; a list of them is changed."""
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    for number, split in enumerate(("trainval", "test")):
        Image.fromarray(IMAGES[number]).save(folder / "images" / f"Bengal_{number}.jpg")
        (folder / "annotations" / f"{split}.txt").write_text(f"Bengal_{number} 6 1 3\n")
    return folder / "annotations" / "trainval.txt"


def make_flowers(compressed: bool) -> Make:
    """Images of Flowers-17, as published; the list of them is changed."""

    def make(folder: Path) -> Path:
        (folder / "jpg").mkdir()
        for number in range(1, 13):
            Image.fromarray(IMAGES[number - 1]).save(folder / "jpg" / f"image_{number:04d}.jpg")
        lists = {"trn1": np.arange(1, 8), "val1": [8, 9], "tst1": [10, 11, 12]}
        savemat(folder / "datasplits.mat", lists, do_compression=compressed)
        return folder / "datasplits.mat"

    return make


SOURCES: dict[str, Parser] = {
    "npz": Parser(make_npz(False), read_source),
    "npz, compressed": Parser(make_npz(True), read_source),
    "HDF5": Parser(make_hdf5(), read_source),
    "HDF5, chunked": Parser(make_hdf5(chunks=(5, 8, 8, 3), compression="gzip", fletcher32=True), read_source),
    "IDX": Parser(make_idx(""), read_source),
    "IDX, gzip": Parser(make_idx(".gz"), read_source),
    "PNG": Parser(make_images(".png"), read_source),
    "JPEG": Parser(make_images(".jpg"), read_source),
    "TIFF": Parser(make_images(".tif", compression="tiff_lzw"), read_source),
    "WebP": Parser(make_images(".webp"), read_source),
    "BMP": Parser(make_images(".bmp"), read_source),
    "PNG, excluded": Parser(make_palette, copied("mask.png", copy_image)),
    "WAV": Parser(make_wav, read_source),
    "WAV, 24 bits": Parser(make_recordings("WAVEX", "PCM_24"), read_source),
    "WAV, excluded": Parser(make_wav, copied("1.wav", copy_recording)),
    "FLAC": Parser(make_recordings("FLAC", "PCM_16"), read_source),
    "DICOM": Parser(make_dicom(ExplicitVRLittleEndian, WindowCenter=40, WindowWidth=400), read_dicom),
    "DICOM, several frames": Parser(make_dicom(ExplicitVRLittleEndian, 3), read_dicom),
    "DICOM, RLE": Parser(make_dicom(RLELossless, 3), read_dicom),
    "DICOM, JPEG": Parser(make_dicom(JPEGBaseline8Bit), read_dicom),
    "DICOM, JPEG 2000": Parser(make_dicom(JPEG2000Lossless), read_dicom),
    "list of Pets": Parser(make_pets, read_source),
    "MAT-file": Parser(make_flowers(False), read_source),
    "MAT-file, compressed": Parser(make_flowers(True), read_source),
    "NIfTI": Parser(make_nifti(".nii"), read_source),
    "NIfTI-2": Parser(make_nifti(".nii", nibabel.Nifti2Image), read_source),
    "NIfTI, gzip": Parser(make_nifti(".nii.gz"), read_source),
}
