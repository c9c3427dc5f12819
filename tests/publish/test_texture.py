"""Class texture on images of their own sizes: drawn at the size that is published, by all who publish or check it."""

from __future__ import annotations

import json

import h5py
import nibabel
import numpy as np
import pytest
import torch
from dicoms import noise, write_dicom
from PIL import Image
from toys import ToySource, alone

from hpcule.config.errors import DataError, StoreError
from hpcule.craft.run import craft
from hpcule.craft.table import configure, find
from hpcule.data.opening import Opening
from hpcule.data.resize import resize_planes
from hpcule.interface.stores import open_store
from hpcule.publish.carry import own_size, publishing, seen_change
from hpcule.publish.export import export
from hpcule.publish.texture import Texture, whole_levels
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.victim.kinds import native_publisher
from hpcule.world.signals import StopFlag
from hpcule.world.texture_recipe import TextureRecipe

EPSILON = 12
SIZES = [(90, 110), (64, 48), (150, 33), (41, 41), (32, 32), (120, 120)]
"""Height and width."""


def recipe(**settings):
    given = {
        "spectra": 2,
        "sectors": 1,
        "shortest": None,
        "longest": None,
        "saturation": 2.5,
        "colour": False,
        "flat": 1,
    }
    return TextureRecipe(**{**given, **settings})


def grey(height, width, seed):
    return noise(height, width, 1, low=60, high=190, seed=seed)[..., 0]


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes with images of several sizes, every second one grey, some as small as it is crafted."""
    for number in range(12):
        size = SIZES[number // 2]
        pixels = noise(*size, 3, low=60, high=190, seed=number) if number % 2 else grey(*size, number)
        path = tmp_path / "data" / "ab"[number // 6] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def crafted(data, store, *overrides):
    """A store, and the source that it was made for."""
    settings = [f"method.epsilon={EPSILON}", "seed=3", "store.shards=2", *overrides]
    config = configure("texture", str(data), preset=None, file={}, overrides=settings)
    source = config.opening.source(config.data)
    craft(config, source, Vault(store), alone(), StopFlag(), resume=False, report=lambda step: None)
    return StoreReader(Vault(store)), source


def wavelengths(delta):
    """Share of the energy [H, W] of a delta at wavelengths below 9, from 9 to 18, and above 18 pixels."""
    height, width = delta.shape
    energy = np.abs(np.fft.fft2(delta)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    parts = frequency > 1 / 9, (frequency <= 1 / 9) & (frequency > 1 / 18), frequency <= 1 / 18
    return np.array([energy[part].sum() for part in parts]) / energy.sum()


@pytest.mark.parametrize("settings", [[], ["method.colour=true", "method.flat=0.5"]])
def test_images_get_it_at_their_own_sizes(pictures, tmp_path, settings):
    store, source = crafted(pictures, tmp_path / "store", "image_size=32", *settings)
    export(Vault(tmp_path / "store"), source, tmp_path / "copy")
    copy = Opening(image_size=32).source(str(tmp_path / "copy"))
    texture = Texture.of(store.manifest)
    for sample in range(len(source)):
        before, after = source.native(sample).pixels, copy.native(sample).pixels
        change = after.astype(int) - before
        assert np.abs(change).max() == EPSILON
        if before.shape[1:] == (32, 32):
            expected = store.delta_on(np.array([sample]), source.read(np.array([sample])))[0]
        else:
            drawn = texture.at(sample, store.spectrum(sample), before)
            is_grey = (before == before[:1]).all()
            expected = np.rint(drawn.mean(0, keepdims=True) if is_grey else drawn)
        assert np.array_equal(change, np.broadcast_to(expected, change.shape))
    ids = np.arange(len(source))
    published = publishing(store, source)(ids, source.read(ids))
    assert np.array_equal(published, copy.read(ids))
    assert np.array_equal(seen_change(store, source)(ids, source.read(ids)), published.astype(int) - source.read(ids))
    publish = native_publisher("protected", store, 0, source, protected=ids[::2])
    for sample in ids.tolist():
        as_read = (source if sample % 2 else copy).native(sample)
        assert np.array_equal(publish(sample, source.native(sample)).pixels, as_read.pixels)
    for number, (image, _) in enumerate(open_store(tmp_path / "store").published(str(pictures))):
        assert np.array_equal(image, copy.native(number).pixels)
    assert verify(Vault(tmp_path / "store"), source) == []


def test_wavelengths_are_those_of_the_published_image():
    texture = Texture(recipe(shortest=8, longest=16), 1, (3, 32, 32), EPSILON)
    for shape in [(3, 200, 300), (1, 64, 90)]:
        flat = np.full(shape, 128, np.uint8)
        shares = [wavelengths(texture.at(5, spectrum, flat)[0]) for spectrum in (0, 1)]
        assert sorted(share.argmax() for share in shares) == [0, 1]
        assert max(share[2] for share in shares) < 0.2


def test_by_default_a_large_image_has_waves_that_a_victim_sees_where_it_makes_it_smaller():
    texture = Texture(recipe(), 1, (3, 64, 64), EPSILON)
    delta = texture.at(0, 0, np.full((3, 640, 640), 128, np.uint8))[0]
    small = resize_planes((128 + delta[None].repeat(3, 0)).round().astype(np.uint8), 64).astype(int) - 128
    assert np.sqrt((small**2).mean()) > 0.3 * np.sqrt((delta**2).mean())
    assert recipe().span(640, 64) == (12, 320)
    assert recipe().span(64, 64) == (8, 32)
    assert recipe().span(16, 64) == (2, 8)
    assert recipe(longest=20.0).span(640, 64) == (12, 20)


def test_spectra_of_large_images_go_on_where_those_of_small_ones_end():
    wide = recipe(spectra=10, sectors=3)
    small, large = (wide.table(wide.cells(side, 64), 7) > 0 for side in (64, 640))
    assert large.shape[1] > small.shape[1]
    assert np.array_equal(large[:, : small.shape[1]], small)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images_keep_the_budget(size):
    delta = Texture(recipe(), 1, (3, 32, 32), EPSILON).at(0, 1, np.full((3, *size), 9, np.uint8))
    assert delta.shape == (1, *size)
    assert np.abs(delta).max() <= EPSILON


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_delta_is_cut_where_the_grid_ends(dtype):
    levels = int(np.iinfo(dtype).max)
    clean = np.array([0, 3, 200, levels - 3, levels], dtype).reshape(1, 1, 1, 5).repeat(2, 1)
    for delta in (-8.4, 0.2, 7.6):
        found = whole_levels(torch.full((1, 1, 1, 5), delta), clean, levels)
        expected = np.clip(clean.astype(np.int64) + round(delta), 0, levels) - clean
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [32, 48])
def test_dicom_files_of_any_size(tmp_path, size):
    """Of the crafted size as it was crafted, in stored values; of another one drawn at that."""
    for number in range(6):
        pixels = (grey(48, 48, number).astype(np.uint16) * 16) + 100
        write_dicom(tmp_path / "data" / "ab"[number // 3] / f"{number}.dcm", pixels, bits=12)
    store, source = crafted(tmp_path / "data", tmp_path / "store", f"image_size={size}")
    export(Vault(tmp_path / "store"), source, tmp_path / "copy")
    copy = Opening(image_size=size).source(str(tmp_path / "copy"))
    for sample in range(6):
        before, after = source.native(sample), copy.native(sample)
        change = after.pixels.astype(int) - before.pixels
        assert 0 < np.abs(change).max() <= before.grid.bound(EPSILON)
        if size == 48:
            levels = store.delta(np.array([sample]))[0, :1]
        else:
            levels = Texture.of(store.manifest).at(sample, store.spectrum(sample), before.shown())
        assert np.corrcoef(change.ravel(), levels.ravel())[0, 1] > 0.99


def test_without_image_size_files_of_one_size_are_crafted_at_it(tmp_path):
    for number in range(4):
        write_dicom(tmp_path / "d" / "ab"[number // 2] / f"{number}.dcm", grey(40, 56, number))
        volume = nibabel.Nifti1Image(grey(40, 56, number)[:, :, None].astype(np.int16), np.eye(4))
        (tmp_path / "n" / "ab"[number // 2]).mkdir(parents=True, exist_ok=True)
        volume.to_filename(tmp_path / "n" / "ab"[number // 2] / f"{number}.nii")
    for folder, shape in [("d", (40, 56)), ("n", (56, 40))]:
        store, source = crafted(tmp_path / folder, tmp_path / f"store-{folder}")
        assert store.manifest.sample_shape[1:] == shape
        for sample in range(4):
            native = source.native(sample)
            assert np.array_equal(own_size(store, sample, native), store.delta(np.array([sample]))[0, :1])


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(9):
        stripes = np.where(np.arange(50) % (4 if number % 3 else 50) < 2, 60, 0).astype(np.uint8)
        Image.fromarray(grey(40, 50, number) // 2 + stripes).save(tmp_path / "data" / f"{number}.png")
    with pytest.raises(DataError, match=r"data has none: use class folders, method\.clusters, or uc"):
        crafted(tmp_path / "data", tmp_path / "none", "image_size=32")
    store, source = crafted(tmp_path / "data", tmp_path / "store", "image_size=32", "method.clusters=2")
    assert [store.spectrum(sample) for sample in range(9)] == [1, 0, 0] * 3
    assert store.manifest.texture.spectra == 2
    assert verify(Vault(tmp_path / "store"), source) == []
    export(Vault(tmp_path / "store"), source, tmp_path / "copy")
    change = np.asarray(Image.open(tmp_path / "copy" / "0.png")).astype(int) - source.native(0).pixels[0]
    assert np.array_equal(change, np.rint(Texture.of(store.manifest).at(0, 1, source.native(0).pixels)[0]))


def test_learned_spectra_have_no_recipe():
    config = configure("texture-learned", "toys", preset="smoke", file={}, overrides=[]).method
    assert find("texture-learned").texture(config, ToySource()) is None


def test_a_damaged_row_is_found(pictures, tmp_path, sign_again):
    crafted(pictures, tmp_path / "store", "image_size=32")
    vault = Vault(tmp_path / "store")
    manifest = read_manifest(vault)
    entry = manifest.shards[1]
    with h5py.File(tmp_path / "store" / entry.file, "r+") as file:
        file["spectrum"][1] = 2
    sign_again(tmp_path / "store", manifest, entry.file)
    (damage,) = verify(vault)
    assert (damage.kind, damage.file) == ("group", entry.file)
    assert damage.message == f"sample {entry.first + 1} is in spectrum 2, outside 0..1"
    with pytest.raises(StoreError, match="is in spectrum 2"):
        StoreReader(vault).spectrum(0)


def test_an_impossible_recipe_is_refused(pictures, tmp_path):
    crafted(pictures, tmp_path / "store", "image_size=32")
    vault = Vault(tmp_path / "store")
    document = vault.read_json("manifest.json")
    for change in [{"spectra": 0}, {"sectors": 7}, {"shortest": 1.0}, {"longest": 1}, {"saturation": 0}, {"flat": 1.5}]:
        changed = {**document, "texture": {**document["texture"], **change}}
        vault.write("manifest.json", json.dumps(changed).encode())
        with pytest.raises(StoreError, match="no texture has"):
            read_manifest(vault)
