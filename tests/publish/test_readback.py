"""Faults planted in what a writer has written, one at a time: the export ends, names the file and leaves nothing."""

from __future__ import annotations

import io
import tarfile
import wave

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.config.errors import StoreError
from hpcule.data.opening import Opening
from hpcule.publish.export import export
from hpcule.publish.readback import ReadBack
from hpcule.publish.release import native_figures
from hpcule.store.vault import Vault

FAULTS = ("permuted", "repeated", "off by one", "swapped channels")


def spoilt(samples, fault):
    """Samples [n, H, W, C] with a fault in them."""
    samples = samples.copy()
    if fault == "permuted":
        samples[[0, 1]] = samples[[1, 0]]
    elif fault == "repeated":
        samples[1] = samples[0]
    elif fault == "off by one":
        samples[1, 0, 3, 0] ^= 1
    else:
        samples[1] = samples[1, ..., ::-1]
    return samples


def spoil_npz(copy, split, fault):
    (path,) = copy.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    arrays[f"{split}_images"] = spoilt(arrays[f"{split}_images"], fault)
    np.savez(path, **arrays)


def spoil_hdf5(copy, split, fault):
    (path,) = copy.iterdir()
    with h5py.File(path, "r+") as file:
        file[f"{split}_images"][...] = spoilt(file[f"{split}_images"][()], fault)


def read_image(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def image_bytes(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def spoil_folder(copy, split, fault):
    paths = sorted((copy / split).rglob("*.png"))
    for path, pixels in zip(paths, spoilt(np.stack([read_image(p.read_bytes()) for p in paths]), fault), strict=True):
        path.write_bytes(image_bytes(pixels))


def spoil_shards(copy, split, fault):
    path = copy / f"{split}-000000.tar"
    with tarfile.open(path) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive}
    names = [name for name in members if name.endswith(".png")]
    pixels = spoilt(np.stack([read_image(members[name]) for name in names]), fault)
    members |= {name: image_bytes(each) for name, each in zip(names, pixels, strict=True)}
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def spoil_dicom(copy, split, fault):
    path = next((copy / split).rglob("*.dcm"))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = spoilt(dataset.pixel_array, fault).tobytes()
    dataset.save_as(path)


def spoil_nifti(copy, split, fault):
    """Slices as samples; there are no channels, so the first two axes are exchanged."""
    path = next((copy / split).rglob("*.nii"))
    image = nibabel.load(path)
    values = np.array(image.dataobj.get_unscaled())
    slices = np.moveaxis(values.reshape(*values.shape[:2], -1), 2, 0)[..., None]
    found = spoilt(slices, fault) if fault != "swapped channels" else slices.transpose(0, 2, 1, 3)
    back = np.moveaxis(found[..., 0], 0, 2).reshape(values.shape)
    raw = path.read_bytes()
    path.write_bytes(raw[: image.dataobj.offset] + back.astype(values.dtype).tobytes(order="F"))


def spoil_wav(copy, split, fault):
    """Recordings of one length as samples [n, 1, t, channels]."""
    paths, recordings = sorted((copy / split).rglob("*.wav")), []
    for path in paths:
        with wave.open(str(path)) as file:
            setting, data = file.getparams(), file.readframes(file.getnframes())
        recordings.append(np.frombuffer(data, "<i2").reshape(1, -1, setting.nchannels))
    for path, signal in zip(paths, spoilt(np.stack(recordings), fault), strict=True):
        with wave.open(str(path), "wb") as file:
            file.setparams(setting)
            file.writeframes(signal.tobytes())


def write_image(path, number):
    path = path.with_suffix(".png")
    Image.fromarray(noise(12, 12, 3, low=30, high=220, seed=number)).save(path)


def write_film(path, number):
    pixels = noise(3, 12, 12, 3, high=200, seed=number)
    write_dicom(path.with_suffix(".dcm"), pixels, stored_as="RGB", NumberOfFrames=3)


def write_volume(path, number):
    values = noise(12, 12, 3, 2, high=30_000, dtype=np.int16, seed=number)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path.with_suffix(".nii"))


def write_recording(path, number):
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(noise(30, 2, low=-20_000, high=20_000, dtype=np.int16, seed=number).tobytes())


FORMATS = {
    "npz": (write_image, {}, spoil_npz),
    "hdf5": (write_image, {}, spoil_hdf5),
    "folder": (write_image, {}, spoil_folder),
    "webdataset": (write_image, {}, spoil_shards),
    "folder, own sizes": (write_image, {"image_size": 8}, spoil_folder),
    "webdataset, own sizes": (write_image, {"image_size": 8}, spoil_shards),
    "folder, tiles": (write_image, {"tile_size": 8}, spoil_folder),
    "dicom": (write_film, {"image_size": 8}, spoil_dicom),
    "nifti": (write_volume, {"image_size": 8}, spoil_nifti),
    "wav": (write_recording, {}, spoil_wav),
}


@pytest.fixture(params=FORMATS)
def published(request, tmp_path, make_store):
    """What exports two splits into one format, and what spoils one of them."""
    write, opening, spoil = FORMATS[request.param]
    for split in ("train", "test"):
        for number in range(4):
            (tmp_path / "data" / split / "a").mkdir(parents=True, exist_ok=True)
            write(tmp_path / "data" / split / "a" / str(number), number + 10 * (split == "test"))
    data = str(tmp_path / "data")
    source, test = (Opening(**opening).source(data, split) for split in ("train", "test"))
    store, *_ = make_store(source, **({"working_size": 8, "applied_at": "working"} if opening else {}))

    def run(**settings):
        kind = request.param.partition(",")[0]
        return export(Vault(store), source, tmp_path / "copy", format=kind, other_splits={"test": test}, **settings)

    return run, spoil


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_ends_the_export(published, tmp_path, monkeypatch, fault, split):
    run, spoil = published
    real = ReadBack.check

    def check(self, made, sources, records):
        spoil(made, split, fault)
        real(self, made, sources, records)

    monkeypatch.setattr(ReadBack, "check", check)
    with pytest.raises(StoreError, match=r"read again, is not what was to be published \(.*--no-check skips") as caught:
        run()
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "store"]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_check_is_made_unless_it_is_switched_off(published, monkeypatch, wanted):
    run, _ = published
    calls = []
    real = ReadBack.check

    def check(self, made, sources, records):
        calls.append(set(sources))
        real(self, made, sources, records)

    monkeypatch.setattr(ReadBack, "check", check)
    assert run(check=wanted).path.exists()
    assert calls == [{"train", "test"}] * wanted


def test_jpeg_is_compared_with_what_is_recorded_of_it(tmp_path, make_store, monkeypatch):
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(noise(16, 16, 3, seed=number)).save(tmp_path / "data" / "a" / f"{number}.jpg")
    source = Opening(image_size=8).source(str(tmp_path / "data"))
    store, *_ = make_store(source, working_size=8, applied_at="working")
    settings = {"jpeg_quality": 90, "compare": native_figures}
    export(Vault(store), source, tmp_path / "good", **settings)
    real = ReadBack.check

    def check(self, made, sources, records):
        (made / "a" / "2.jpg").write_bytes((made / "a" / "1.jpg").read_bytes())
        real(self, made, sources, records)

    monkeypatch.setattr(ReadBack, "check", check)
    with pytest.raises(StoreError, match=r"a/2\.jpg, read again"):
        export(Vault(store), source, tmp_path / "bad", **settings)
