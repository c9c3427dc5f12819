"""What leaves the house holds no seed, no perturbation, no path and nothing of what stood beside the pixels.

A source of its own kind is one more line in SOURCES: it is written with the PATIENT everywhere but in the samples and
the labels, and all formats of its line are exported and searched.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import wave
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from dicoms import item, write_dicom
from leaks import leaks
from PIL import Image, PngImagePlugin

from hpcule.data.opening import Opening
from hpcule.evaluation.pictures import choose_samples, delta_picture
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

PATIENT = "Muster^Erika"
"""Planted beside the samples. Names of classes and files are published, and are the owner's to look at."""
COUNT, SIZE = 40, 24


def draw(count=COUNT):
    """Images [n, H, W, 3] and labels [n] of two classes."""
    pixels = np.random.default_rng(5).integers(30, 226, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return pixels, np.arange(count) % 2


def write_images(root):
    """Of several formats and sizes, each with its own place for text."""
    text = PngImagePlugin.PngInfo()
    text.add_text("PatientName", PATIENT)
    text.add_text("Comment", f"again {PATIENT} " * 9, zip=True)
    text.add_itxt("History", PATIENT * 9, zip=True)
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = PATIENT
    xmp = f"<x:xmpmeta><name>{PATIENT}</name></x:xmpmeta>".encode()
    kinds = [
        (".png", {"pnginfo": text, "exif": exif}),
        (".jpg", {"exif": exif, "xmp": xmp, "comment": PATIENT.encode(), "quality": 95}),
        (".tif", {"description": PATIENT, "artist": PATIENT, "compression": "tiff_lzw"}),
        (".webp", {"exif": exif, "xmp": xmp, "lossless": True}),
        (".bmp", {}),
    ]
    for number, (pixels, label) in enumerate(zip(*draw(2 * COUNT), strict=True)):
        ending, extras = kinds[number // 2 % len(kinds)]
        folder = root / "pictures" / ("train" if number < COUNT else "test") / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[: SIZE - number // 2 % 3]).save(folder / f"{number:03}{ending}", **extras)
    return root / "pictures"


def write_npz(root):
    """With an array that is none of ours."""
    pixels, labels = draw()
    arrays = {
        f"{split}_{what}": part
        for split in ("train", "test")
        for what, part in (("images", pixels), ("labels", labels))
    }
    np.savez_compressed(root / "scans.npz", patients=np.array([PATIENT.encode()] * COUNT), **arrays)
    return root / "scans.npz"


def write_hdf5(root):
    """With an attribute and a dataset that are none of ours."""
    pixels, labels = draw()
    with h5py.File(root / "scans.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}_images"], file[f"{split}_labels"] = pixels, labels
            file[f"{split}_images"].attrs["PatientName"] = PATIENT
        file.attrs["PatientName"] = PATIENT
        file["patients"] = [PATIENT.encode()] * COUNT
    return root / "scans.h5"


def write_recordings(root):
    """With the chunk in which WAV files name their artist."""
    info = b"INFOIART" + len(PATIENT).to_bytes(4, "little") + PATIENT.encode()
    chunk = b"LIST" + len(info).to_bytes(4, "little") + info
    rng = np.random.default_rng(6)
    for number in range(2 * COUNT):
        folder = root / "recordings" / ("train" if number < COUNT else "test") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:03}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(rng.normal(0, 4000, 700 + number).astype("<i2").tobytes())
        whole = path.read_bytes() + chunk
        path.write_bytes(whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:])
    return root / "recordings"


def write_series(root):
    """With what a scanner writes of a patient, in folders and files that are called after one."""
    pixels, labels = draw(2 * COUNT)
    for number, (image, label) in enumerate(zip(pixels[..., 0].astype(np.int16), labels, strict=True)):
        place = root / "series" / ("train" if number < COUNT else "test") / f"class{label}" / PATIENT
        notes = item(StudyDescription=PATIENT, RequestedProcedureID=PATIENT)
        tags = {"PatientName": PATIENT, "PatientComments": PATIENT * 9, "RequestAttributesSequence": notes}
        dataset = write_dicom(place / f"{number:03}.dcm", image, WindowCenter=120, WindowWidth=200, **tags)
        dataset.private_block(0x0011, PATIENT, create=True).add_new(1, "LO", PATIENT)
        dataset.save_as(place / f"{number:03}.dcm", enforce_file_format=True)
    return root / "series"


def write_volumes(root):
    """With text in their headers, and in one that follows it."""
    pixels, _ = draw(2 * COUNT)
    for number, slices in enumerate(np.split(pixels[..., 0], COUNT // 2)):
        image = nibabel.Nifti1Image(slices.transpose(2, 1, 0).astype(np.int16), np.eye(4))
        image.header["descrip"] = image.header["aux_file"] = PATIENT.encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", PATIENT.encode() * 9))
        folder = root / "volumes" / ("train" if number < COUNT // 4 else "test") / f"class{number % 2}" / PATIENT
        folder.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, folder / f"{number:03}.nii")
    return root / "volumes"


SOURCES = {
    "images": (write_images, "classwise", ["--set", "image_size=24"], ("folder", "npz", "hdf5")),
    "npz": (write_npz, "ar", [], ("folder", "npz", "hdf5")),
    "hdf5": (write_hdf5, "ar", [], ("folder", "npz", "hdf5")),
    "dicom": (write_series, "classwise", ["--set", "image_size=24"], ("dicom", "npz", "hdf5")),
    "nifti": (write_volumes, "classwise", ["--set", "image_size=24"], ("nifti", "npz", "hdf5")),
    "wav": (write_recordings, "poscuda", ["--set", "method.region=300"], ("wav", "npz", "hdf5")),
}
"""How the source is written, a method without a surrogate, whose seed is a key, its settings, formats of the export."""


@pytest.fixture(scope="module", params=SOURCES)
def crafted(request, tmp_path_factory):
    """(name in SOURCES, data, store); what leads there is called after the patient, too."""
    from hpcule.cli.main import main

    write, method, settings, _ = SOURCES[request.param]
    root = tmp_path_factory.mktemp("private") / PATIENT
    root.mkdir()
    data = write(root)
    assert main(["craft", method, "--data", str(data), "--out", str(root / "store"), *settings]) == 0
    return request.param, data, root / "store"


def needles(data, store):
    """By name, what nobody may find."""
    seed = read_manifest(Vault(store)).seed
    found = {
        "seed, decimal": str(seed).encode(),
        "seed, hexadecimal": f"{seed:x}".encode(),
        "seed, little-endian": seed.to_bytes(8, "little"),
        "seed, big-endian": seed.to_bytes(8, "big"),
        "run key": read_manifest(Vault(store)).run_key.encode(),
        "patient": PATIENT.encode(),
        "patient, UTF-16": PATIENT.encode("utf-16-le"),
        "folder": str(data.parent.parent).encode(),
        "home": f"{Path.home()}/".encode(),
        "host": socket.gethostname().encode(),
    }
    return {name: needle for name, needle in found.items() if len(needle) > 4} | deltas(store)


def deltas(store):
    """Of each sample a piece of its delta that occurs nowhere else, in the orders and types that files have."""
    with StoreReader(Vault(store)) as reader:
        delta = reader.delta(np.arange(reader.manifest.n))
    found = {}
    for sample, one in enumerate(delta):
        for order, array in (("planes", one), ("pixels", one.transpose(1, 2, 0))):
            for kind in ("i1", "<i2", ">i2", "<i4"):
                piece = telling(array.astype(kind).ravel())
                found[f"delta {sample}, {order}, {kind}"] = piece.tobytes()
    return found


def telling(values, length=40):
    """The first piece of an array with more than a few values in it."""
    for start in range(0, len(values) - length, length):
        if len(set(values[start : start + length].tolist())) > 5:
            return values[start : start + length]
    raise AssertionError("the delta is flat")


@pytest.fixture
def exported(crafted, run, tmp_path):
    """Export in a format."""

    def export(format):
        _, data, store = crafted
        code, _, err = run("export", store, "--data", data, "--out", tmp_path / format, "--format", format)
        assert code == 0, err
        return tmp_path / format

    return export


def test_every_search_finds_what_it_looks_for(crafted):
    """In the data there is the patient, in the store there are the seed and all deltas."""
    _, data, store = crafted
    assert {name for name, _ in leaks(data, {"patient": PATIENT.encode()})} == {"patient"}
    found = leaks(store, needles(data, store))
    in_store = {name for name, _ in found}
    assert {place for name, place in found if name.startswith("seed")} == {"manifest.json", "run/config.yaml"}
    wanted = {
        name for name in deltas(store) if name.endswith(f"planes, {read_manifest(Vault(store)).delta_dtype.str[1:]}")
    }
    assert {"seed, decimal", "run key"} <= in_store
    assert len(wanted) in (0, COUNT)
    assert wanted <= in_store


@pytest.mark.parametrize("number", range(3))
def test_an_export_leaks_nothing(crafted, exported, number):
    name, data, store = crafted
    copy = exported(SOURCES[name][3][number])
    assert len(list(copy.rglob("*"))) >= 1
    assert leaks(copy, needles(data, store)) == set()


PLANTS = {
    "PNG text": lambda image, secret: _png(image, "Comment", secret, zip=False),
    "packed PNG text": lambda image, secret: _png(image, "Comment", secret, zip=True),
    "EXIF": lambda image, secret: _exif(image, secret),
    "a file's name": lambda image, secret: image.with_name(f"{secret}.png").write_bytes(b""),
    "gzip": lambda image, secret: image.with_name("notes.gz").write_bytes(gzip.compress(secret.encode() * 9)),
    "npz": lambda image, secret: np.savez_compressed(
        image.with_name("x.npz"), x=np.frombuffer(secret.encode() * 9, "u1")
    ),
    "HDF5": lambda image, secret: _hdf5(image.with_name("x.h5"), secret),
    "a report": lambda image, secret: _page(image, secret),
}


def _png(path, key, secret, *, zip):
    text = PngImagePlugin.PngInfo()
    text.add_text(key, secret * 9, zip=zip)
    with Image.open(path) as image:
        image.save(path, pnginfo=text)


def _exif(path, secret):
    exif = Image.Exif()
    exif[0x010E] = secret
    with Image.open(path) as image:
        image.save(path.with_suffix(".jpg"), exif=exif)


def _hdf5(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.frombuffer(secret.encode() * 99, "u1"), compression="gzip")


def _page(path, secret):
    from base64 import b64encode

    _png(path, "Comment", secret, zip=True)
    text = b64encode(path.read_bytes()).decode()
    path.with_name("report.html").write_text(f'<!doctype html><img src="data:image/png;base64,{text}">')
    path.unlink()


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_found(tmp_path, plant):
    (tmp_path / "copy").mkdir()
    image = tmp_path / "copy" / "1.png"
    Image.fromarray(draw()[0][0]).save(image)
    secret = {"seed": b"8231947502938475"}
    assert leaks(tmp_path / "copy", secret) == set()
    PLANTS[plant](image, "8231947502938475")
    assert leaks(tmp_path / "copy", secret) != set()


@pytest.mark.parametrize("crafted", ["npz", "wav"], indirect=True)
def test_a_report_shows_the_deltas_of_its_pictures_and_leaks_nothing_else(crafted, run, tmp_path):
    """Reports are private, as they say themselves: of eight samples they show what was added, and no more."""
    name, data, store = crafted
    settings = ["victim.epochs=1", "victim.batch=16", "world.threads=1", "recipes=[plain]"]
    settings += ["victim.network=convnet"] if name == "npz" else []
    out = tmp_path / "report"
    words = [word for setting in settings for word in ("--set", setting)]
    code, _, err = run("evaluate", store, "--data", data, "--suite", "quick", "--out", out, *words)
    assert code == 0, err
    assert leaks(out, needles(data, store)) == set()
    assert {oct(path.stat().st_mode & 0o077) for path in (out, *out.rglob("*"))} == {"0o0"}
    page = (out / "report.html").read_text()
    assert "Keep this report private" in page
    # What was measured of the method names the number of its records' seeds; the store's own would be a field.
    assert '"seed"' not in json.dumps(json.loads((out / "results.json").read_text())["protection"])
    if name == "npz":
        shown = {int(found[0].split()[1]) for found in leaks(out, pictured(store, page))}
        assert shown == set(choose_samples(Opening().source(str(data)).labels, 8).tolist())


def pictured(store, page):
    """Deltas as the report would show them."""
    factor = int(re.search(r"delta × (\d+)", page)[1])
    with StoreReader(Vault(store)) as reader:
        delta = reader.delta(np.arange(reader.manifest.n))
    return {
        f"picture {sample}": telling(delta_picture(one, factor, 255).transpose(1, 2, 0).ravel()).tobytes()
        for sample, one in enumerate(delta)
    }
