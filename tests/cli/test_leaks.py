"""What leaves the house holds no seed, no perturbation, no path and nothing of what stood beside the pixels.

A source of its own kind is one more line in SOURCES: it is written with a text in every place but the samples and the
labels (`plants` lists the places), and all formats and policies of its line are exported and searched.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from dicom_plants import FILES, TAGS
from leaks import leaks
from PIL import Image, PngImagePlugin
from plants import IMAGES, PATIENT, RECORDINGS, VOLUMES, Planter
from slowly import slow_but

from hpcule.data.opening import Opening
from hpcule.evaluation.pictures import choose_samples, delta_picture
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

COUNT, SIZE = 40, 24


def draw(count=COUNT):
    """Images [n, H, W, 3] and labels [n] of two classes."""
    pixels = np.random.default_rng(5).integers(30, 226, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return pixels, np.arange(count) % 2


def write_images(root, plant):
    """Of all kinds and of several sizes."""
    for number, (pixels, label) in enumerate(zip(*draw(2 * COUNT), strict=True)):
        ending, write = IMAGES[number // 2 % len(IMAGES)]
        folder = root / "pictures" / ("train" if number < COUNT else "test") / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}{ending}").write_bytes(write(pixels[: SIZE - number // 2 % 3], plant))
    return root / "pictures"


def write_npz(root, plant):
    """With an array that is none of ours."""
    text = plant.bytes("npz array")
    pixels, labels = draw()
    arrays = {
        f"{split}_{what}": part
        for split in ("train", "test")
        for what, part in (("images", pixels), ("labels", labels))
    }
    np.savez_compressed(root / "scans.npz", patients=np.array([text] * COUNT), **arrays)
    return root / "scans.npz"


def write_hdf5(root, plant):
    """With attributes and a dataset that are none of ours."""
    pixels, labels = draw()
    with h5py.File(root / "scans.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}_images"], file[f"{split}_labels"] = pixels, labels
            file[f"{split}_images"].attrs["PatientName"] = plant.text("HDF5 attribute of a dataset")
        file.attrs["PatientName"] = plant.text("HDF5 attribute")
        file["patients"] = [plant.bytes("HDF5 dataset")] * COUNT
    return root / "scans.h5"


def write_recordings(root, plant):
    """Of all kinds."""
    rng = np.random.default_rng(6)
    for number in range(2 * COUNT):
        ending, write = RECORDINGS[number // 2 % len(RECORDINGS)]
        folder = root / "recordings" / ("train" if number < COUNT else "test") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        samples = rng.normal(0, 4000, 700 + number).astype("<i2")
        (folder / f"{number:03}{ending}").write_bytes(write(samples, plant))
    return root / "recordings"


def write_series(root, plant):
    """Of all kinds, in folders that are called after a patient."""
    for number, (pixels, label) in enumerate(zip(*draw(2 * COUNT), strict=True)):
        place = root / "series" / ("train" if number < COUNT else "test") / f"class{label}" / PATIENT
        place.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts that are too long for their elements
            (place / f"{number:03}.dcm").write_bytes(FILES[number // 2 % len(FILES)](pixels, plant))
    return root / "series"


def write_volumes(root, plant):
    """Of all kinds, in folders that are called after a patient."""
    pixels, _ = draw(2 * COUNT)
    for number, slices in enumerate(np.split(pixels[..., 0], COUNT)):
        ending, write = VOLUMES[number // 2 % len(VOLUMES)]
        folder = root / "volumes" / ("train" if number < COUNT // 2 else "test") / f"class{number % 2}" / PATIENT
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}{ending}").write_bytes(write(slices.transpose(2, 1, 0).astype(np.int16), plant))
    return root / "volumes"


POLICIES = [f"--dicom-tags={policy}" for policy in ("basic-deidentify", "minimal", "keep")]
ARRAYS = [["--format=npz"], ["--format=hdf5"]]
SOURCES = {
    "images": (
        *(write_images, "classwise", ["--set", "image_size=24"]),
        [["--format=folder"], ["--format=folder", "--jpeg-quality=95"], ["--format=webdataset"], *ARRAYS],
    ),
    "npz": (write_npz, "ar", [], [["--format=folder"], *ARRAYS]),
    "hdf5": (write_hdf5, "ar", [], [["--format=folder"], *ARRAYS]),
    "dicom": (
        *(write_series, "classwise", ["--set", "image_size=24"]),
        [*([policy] for policy in POLICIES), ["--shift-dates"], *ARRAYS],
    ),
    "nifti": (
        *(write_volumes, "classwise", ["--set", "image_size=24"]),
        [*([policy] for policy in POLICIES), *ARRAYS],
    ),
    "wav": (
        *(write_recordings, "poscuda", ["--set", "method.region=300"]),
        [["--format=wav"], ["--format=webdataset"], *ARRAYS],
    ),
}
"""What writes the source, a method without a surrogate, whose seed is a key, its settings, options of its exports."""


@pytest.fixture(scope="module", params=slow_but(["npz", "hdf5", "wav", "images"], SOURCES))
def crafted(request, tmp_path_factory):
    """(name in SOURCES, data, store, what was planted); what leads there is called after the patient, too."""
    from hpcule.cli.main import main

    write, method, settings, _ = SOURCES[request.param]
    root = tmp_path_factory.mktemp("private") / PATIENT
    root.mkdir()
    plant = Planter()
    data = write(root, plant)
    assert main(["craft", method, "--data", str(data), "--out", str(root / "store"), *settings]) == 0
    return request.param, data, root / "store", plant.planted


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


def test_every_search_finds_what_it_looks_for(crafted):
    """In the data there are all texts, in the store there are the seed and all deltas."""
    _, data, store, planted = crafted
    assert {place for place, _ in leaks(data, planted)} == set(planted)
    found = leaks(store, needles(data, store))
    in_store = {name for name, _ in found}
    assert {place for name, place in found if name.startswith("seed")} == {"manifest.json", "run/config.yaml"}
    wanted = {
        name for name in deltas(store) if name.endswith(f"planes, {read_manifest(Vault(store)).delta_dtype.str[1:]}")
    }
    assert {"seed, decimal", "run key"} <= in_store
    assert len(wanted) in (0, COUNT)
    assert wanted <= in_store


def test_an_export_leaks_nothing(crafted, run, tmp_path):
    """In any format and with any policy; what names and tags say may stay with the policy that keeps them."""
    name, data, store, planted = crafted
    for number, words in enumerate(SOURCES[name][3]):
        copy = tmp_path / str(number)
        code, _, err = run("export", store, "--data", data, "--out", copy, *words)
        assert code == 0, err
        secrets = needles(data, store) | planted
        if words == ["--dicom-tags=keep"]:
            kept = [place for place in secrets if place.startswith((TAGS, "patient"))]
            secrets = {place: secret for place, secret in secrets.items() if place not in kept}
        assert leaks(copy, secrets) == set(), words


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
    name, data, store, planted = crafted
    settings = ["victim.epochs=1", "victim.batch=16", "world.threads=1", "recipes=[plain]"]
    settings += ["victim.network=convnet"] if name == "npz" else []
    out = tmp_path / "report"
    words = [word for setting in settings for word in ("--set", setting)]
    code, _, err = run("evaluate", store, "--data", data, "--suite", "quick", "--out", out, *words)
    assert code == 0, err
    assert leaks(out, needles(data, store) | planted) == set()
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
