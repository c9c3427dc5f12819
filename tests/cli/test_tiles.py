"""Crafted at the images' own resolution: tiles in, whole images out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.data.opening import Opening
from hpcule.data.resize import to_planes
from hpcule.publish.carry import publishing
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

TILES = ["--set", "tile_size=16", "--set", "world.threads=1"]


def done(result):
    code, out, err = result
    assert code == 0, err
    return out


def smooth(seed, width, height):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(60, 196, (4, 4, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiles") / "pictures"
    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            path = root / split / f"class{number % 2}" / f"{number:02}.{'jpg' if number % 3 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            smooth(number, 20 + 7 * number, 45 - 3 * number).save(path, quality=95)
    return root


def pixels(path):
    with Image.open(path) as image:
        return to_planes(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("method", ["pil", "classwise"])
def test_images_come_back_whole(run, folder, tmp_path, method):
    store, copy = tmp_path / "store", tmp_path / "copy"
    preset = ["--preset", "smoke"] if method == "pil" else []
    done(run("craft", method, *preset, "--data", folder, "--out", store, *TILES))
    assert "is whole" in done(run("verify", store, "--data", folder))
    said = done(run("export", store, "--data", folder, "--out", copy))
    assert "Wrote 12 protected samples" in said
    assert "unchanged: they are not protected" not in said.replace("copied unchanged: they are not protected", "")
    manifest = read_manifest(Vault(store))
    assert manifest.n > 12
    changes = []
    for clean in sorted((folder / "train").rglob("*.*")):
        published = copy / clean.relative_to(folder).with_suffix(".png")
        changes.append(np.abs(pixels(published) - pixels(clean)))
    assert len(changes) == 12
    assert all(0 < change.max() <= 8 for change in changes)
    # Up to the very edges, where only parts of tiles are.
    assert all(change[:, -1].max() > 0 and change[:, :, -1].max() > 0 for change in changes)
    for clean in (folder / "test").rglob("*.png"):
        assert np.array_equal(pixels(copy / clean.relative_to(folder)), pixels(clean))


def test_victims_see_the_tiles_of_what_is_published(run, folder, tmp_path):
    store, copy = tmp_path / "store", tmp_path / "copy"
    done(run("craft", "pil", "--preset", "smoke", "--data", folder, "--out", store, *TILES))
    done(run("export", store, "--data", folder, "--out", copy))
    source, published = Opening(tile_size=16).source(str(folder)), Opening(tile_size=16).source(str(copy))
    ids = np.random.default_rng(0).permutation(len(source))
    with StoreReader(Vault(store)) as reader:
        seen = publishing(reader, source)(ids, source.read(ids))
    np.testing.assert_array_equal(seen, published.read(ids))


def test_a_report_speaks_of_tiles(run, folder, tmp_path):
    done(run("craft", "classwise", "--data", folder, "--out", tmp_path / "store", *TILES))
    settings = ["recipes=[plain]", "victim.epochs=1", "victim.network=convnet", "world.threads=1", "victim.batch=16"]
    words = [word for setting in settings for word in ("--set", setting)]
    line = ["evaluate", tmp_path / "store", "--data", folder, "--out", tmp_path / "report", "--suite", "quick"]
    said = done(run(*line, *words))
    assert "clean test tiles" in said
    assert "images" not in said
    assert json.loads((tmp_path / "report" / "results.json").read_text())["data"]["tiles"] is True
    assert "Tiles of images" in (tmp_path / "report" / "report.html").read_text()


def test_dicom_frames_are_cut_too(run, tmp_path):
    import pydicom

    data, store, copy = tmp_path / "data", tmp_path / "store", tmp_path / "copy"
    for number in range(8):
        values = noise(30 + number, 41, low=100, high=900, dtype=np.int16, seed=number)
        write_dicom(data / f"class{number % 2}" / f"{number}.dcm", values, WindowCenter=500, WindowWidth=1021)
    done(run("craft", "pil", "--preset", "smoke", "--data", data, "--out", store, *TILES))
    done(run("export", store, "--data", data, "--out", copy, "--dicom-tags", "keep"))
    for number in range(8):
        name = f"class{number % 2}/{number}.dcm"
        before, after = (pydicom.dcmread(root / name).pixel_array.astype(int) for root in (data, copy))
        change = np.abs(after - before)
        # A level of the window is four stored ones.
        assert 0 < change.max() <= 8 * 4
        assert change[-1].max() > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["craft", "ops", "--out", "store"], "ops has a budget of whole images, not of values"),
        (["craft", "lsp", "--out", "store"], "lsp has a budget of whole images, not of values"),
        (["craft", "pil", "--out", "store", "--set", "image_size=16"], "image_size and tile_size"),
        (["craft", "pil", "--out", "store", "--set", "tile_size=3"], "tile_size=3: valid are 4 to 4096"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(run, folder, tmp_path, words, said):
    words = [tmp_path / word if word == "store" else word for word in words]
    code, _, err = run(*words[:2], "--data", folder, *TILES, *words[2:])
    assert code != 0
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_no_copy_without_files_and_no_way_back(run, folder, tmp_path):
    store = tmp_path / "store"
    done(run("craft", "classwise", "--data", folder, "--out", store, *TILES))
    code, _, err = run("export", store, "--data", folder, "--out", tmp_path / "copy.npz")
    assert "do not go into npz" in err
    assert code != 0
    done(run("export", store, "--data", folder, "--out", tmp_path / "copy"))
    code, _, err = run("revert", store, "--data", tmp_path / "copy", "--out", tmp_path / "back")
    assert "is of tiles, which cannot be reverted" in err
    assert code != 0


def test_victims_of_a_study_train_on_tiles(run, folder, tmp_path):
    (tmp_path / "study.yaml").write_text(
        f"name: tiles\ndata: {folder}\nmethod: classwise\ncraft: {{tile_size: 16}}\nseeds: [0]\n"
        "victim: {network: convnet, epochs: 1, batch: 16}\nworld: {threads: 1}\n"
    )
    done(run("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out"))
    (store,) = (tmp_path / "out" / "crafts").iterdir()
    assert read_manifest(Vault(store)).n == len(Opening(tile_size=16).source(str(folder)))
    victims = [json.loads(path.read_text()) for path in (tmp_path / "out" / "done").glob("*.json")]
    trained = [victim for victim in victims if victim["kind"] == "victim"]
    assert {victim["role"] for victim in trained} == {"protected", "noise", "clean"}
    assert {victim["steps"] for victim in trained} == {math.ceil(read_manifest(Vault(store)).n / 16)}
