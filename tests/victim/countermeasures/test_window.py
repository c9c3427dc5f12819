"""Attackers display the stored values of published images in windows of their own, those of test images too."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.data.opening import Opening
from hpcule.publish.carry import perturbed_native, published_native
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.countermeasures.window import CT_WINDOWS
from hpcule.victim.kinds import clean
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.victim.training_data import TrainingData

FILE = {"WindowCenter": 50, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
CT = {"RescaleSlope": 2, "RescaleIntercept": -1024}


def config_of(text):
    return VictimConfig(countermeasures=Countermeasures.parse(text))


def series(folder, count=6, *, low=0, high=1500, size=(20, 24), seed=0, **tags):
    """Two classes of CT images that are displayed in a soft-tissue window, brighter from image to image."""
    for number in range(count):
        pixels = noise(*size, low=low, high=high - 50 * number, dtype=np.uint16, seed=seed + number)
        write_dicom(folder / ("sick", "well")[number % 2] / f"{number}.dcm", pixels, **{**FILE, **CT, **tags})
    return str(folder)


def volumes(folder, *, slope=0.5, intercept=-200.0):
    for label in ("sick", "well"):
        path = folder / label / "a.nii"
        path.parent.mkdir(parents=True)
        image = nibabel.Nifti1Image(noise(12, 10, 3, low=-900, high=900, dtype=np.int16, seed=len(label)), np.eye(4))
        nibabel.save(image, path)
        raw = bytearray(path.read_bytes())
        raw[112:120] = np.array([slope, intercept], "<f4").tobytes()  # nibabel would scale the values itself
        path.write_bytes(raw)
    return str(folder)


def taken(samples):
    return samples.take(np.arange(len(samples)))[0].numpy()


def read(text, train, alone, test=None):
    """Training and test samples as a recipe reads them."""
    reading = ReadingSteps(train, config_of(text), 0, alone)
    return taken(reading.train), taken(reading.for_test(test or train))


def slowly_shown(values, black, white, size):
    """Levels of one image of values [H, W] that are black and white here, resized by Pillow."""
    shares = [[min(max((float(value) - black) / (white - black), 0), 1) for value in row] for row in values]
    return np.asarray(Image.fromarray(np.rint(np.array(shares) * 255).astype(np.uint8)).resize(size, 3))


@pytest.mark.parametrize("stored_as", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("percent", [0, 5])
def test_each_image_is_clipped_to_its_own_percentiles(tmp_path, alone, stored_as, percent):
    tags = {"bits": 11, "stored_as": stored_as, "PixelPaddingValue": 2047}
    data = series(tmp_path, **tags)
    padded = noise(20, 24, low=100, high=900, dtype=np.uint16)
    padded[:5] = 2047
    write_dicom(tmp_path / "sick" / "0.dcm", padded, **{**FILE, **CT, **tags})
    source = Opening(image_size=16).source(data)
    found, test = read(f"window-{percent}", Published(source, resident=2**20), alone)
    for sample in range(len(source)):
        stored = source.native(sample).pixels[0].astype(int)
        values = 2047 - stored if stored_as == "MONOCHROME1" else stored
        black, white = np.percentile(values[stored != 2047], (percent, 100 - percent))
        assert np.array_equal(found[sample, 0], slowly_shown(values, black, white, (16, 16)))
    assert np.array_equal(test, found)


@pytest.mark.parametrize("text", CT_WINDOWS)
def test_windows_of_ct_are_in_hounsfield_units(tmp_path, alone, text):
    centre, width = CT_WINDOWS[text]
    for data in (series(tmp_path / "dicom"), volumes(tmp_path / "nifti"), volumes(tmp_path / "turned", slope=-0.5)):
        source = Opening(image_size=8).source(data)
        found, test = read(text, Published(source, resident=2**20), alone)
        for sample in range(len(source)):
            native = source.native(sample)
            hounsfield = native.pixels[0] * native.grid.scale.slope + native.grid.scale.intercept
            expected = slowly_shown(hounsfield, centre - width / 2, centre + width / 2, (8, 8))
            assert np.array_equal(found[sample, 0], expected)
        assert np.array_equal(test, found)
        assert len(np.unique(found)) > 10


def test_a_set_has_one_window_with_its_mean_in_the_middle(tmp_path, alone):
    source = Opening(image_size=16).source(series(tmp_path / "train", high=2000))
    other = Opening(image_size=16).source(series(tmp_path / "test", 2, low=400, seed=9))
    found, test = read(
        "set-window-2", *(Published(one, resident=2**20) for one in (source,)), alone, Published(other, resident=2**20)
    )
    values = [source.native(sample).pixels[0] * 2.0 - 1024 for sample in range(len(source))]
    low, high = np.percentile(np.stack(values), (2, 98))
    mean = np.stack(values).mean()
    reach = max(high - mean, mean - low)
    for sample, own in enumerate(values):
        expected = slowly_shown(own.clip(low, high), mean - reach, mean + reach, (16, 16))
        assert np.array_equal(found[sample, 0], expected)
    for sample in range(2):
        own = other.native(sample).pixels[0] * 2.0 - 1024
        assert np.array_equal(test[sample, 0], slowly_shown(own.clip(low, high), mean - reach, mean + reach, (16, 16)))


@pytest.fixture
def stored(tmp_path, make_store):
    """Samples of a series, and a store of their perturbations, which change the mean of every image."""
    source = Opening(image_size=16).source(series(tmp_path / "data"))
    deltas = np.random.default_rng(1).integers(-8, 17, (len(source), 1, 16, 16))
    return source, make_store(source, epsilon=16.0, deltas=deltas)


def training_set(stored, text, kind, alone):
    source, store = stored
    data = TrainingData.of(source, None, 2**20)
    config, train, _ = data.training_set(config_of(text), kind, store, 3)
    return taken(ReadingSteps(train, config, 3, alone).train)


@pytest.mark.parametrize("text", ["window-1", "set-window-1"])
def test_what_is_displayed_is_what_is_published(stored, alone, text):
    source, store = stored
    natives = [source.native(sample) for sample in range(len(source))]
    published = [published_native(store, source, sample, native) for sample, native in enumerate(natives)]
    found = training_set(stored, text, "protected", alone)
    values = [native.pixels[0] * 2.0 - 1024 for native in published]
    assert any((one.pixels != other.pixels).any() for one, other in zip(natives, published, strict=True))
    for sample, own in enumerate(values):
        if text == "window-1":
            black, white = np.percentile(own, (1, 99))
        else:
            low, high = np.percentile(np.stack(values), (1, 99))
            mean = np.stack(values).mean()
            reach = max(high - mean, mean - low)
            own, black, white = own.clip(low, high), mean - reach, mean + reach
        assert np.array_equal(found[sample, 0], slowly_shown(own, black, white, (16, 16)))


@pytest.mark.parametrize("kind", ["clean", "protected", "noise", "matched", "spectrum"])
def test_in_the_files_own_window_every_kind_is_what_it_was(tmp_path, alone, make_store, kind):
    source = Opening().source(series(tmp_path, 3, low=460, high=610))
    store = make_store(source, epsilon=16.0, deltas=np.random.default_rng(1).integers(-8, 17, (3, *source.shape)))
    kept, found, unchanged = (
        training_set((source, store), text, published, alone).astype(int)
        for text, published in (("plain", kind), ("soft-tissue-window", kind), ("plain", "clean"))
    )
    assert np.abs(kept - found).max() <= 1  # by rounding to stored values
    assert (np.abs(found - unchanged).mean() > 3) == (kind != "clean")


def test_random_noise_moves_stored_values_beyond_the_files_window(tmp_path, alone, make_store):
    source = Opening().source(series(tmp_path, low=30, high=300, count=4))
    store = make_store(source, epsilon=16.0)
    assert not source.read(np.arange(4)).any()
    noisy, unchanged = (training_set((source, store), "lung-window", kind, alone) for kind in ("noise", "clean"))
    change = noisy.astype(int) - unchanged
    # 16 levels of 400 / 255 are 25 units, in whole stored values 24, and 4 levels of 1500 / 255.
    assert set(np.unique(np.abs(change))) <= {4, 5}
    assert 0.3 < (change > 0).mean() < 0.7


def test_a_mixture_is_displayed_with_its_clean_part(stored, alone):
    parts = {kind: training_set(stored, "window-1", kind, alone) for kind in ("clean", "protected")}
    mixed = training_set(stored, "window-1+mix-0.5", "protected", alone)
    which = [[np.array_equal(mixed[n], parts[kind][n]) for kind in parts] for n in range(len(mixed))]
    assert sorted(map(tuple, which)) == [(False, True)] * 4 + [(True, False)] * 2


@pytest.mark.parametrize("text", ["window-2", "lung-window"])
def test_tiles_are_cut_from_whole_images_in_their_window(tmp_path, alone, make_store, text):
    data = series(tmp_path)
    tiles, whole = Opening(tile_size=8).source(data), Opening(image_size=16).source(data)
    deltas = np.random.default_rng(1).integers(-16, 17, (len(tiles), *tiles.shape))
    store = make_store(tiles, epsilon=16.0, deltas=deltas)
    found = training_set((tiles, store), text, "protected", alone)
    for image in range(len(whole)):
        native = perturbed_native(store.delta, store.manifest, tiles, image, whole.native(image))
        values = native.pixels[0] * 2.0 - 1024
        ends = np.percentile(values, (2, 98)) if text == "window-2" else (-1350, 150)
        expected = tiles.cut(slowly_shown(values, *ends, (24, 20))[None])
        assert np.array_equal(found[tiles.of_image(image)], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_are_stretched_on_their_own_grid(alone, dtype):
    source = ToySource(12, dtype=dtype)
    levels, images = source.levels, source.samples.astype(float)
    found, test = read("window-3", Published(source, resident=2**20), alone)
    for sample, image in enumerate(images):
        black, white = np.percentile(image, (3, 97))
        expected = np.rint(((image - black) / (white - black)).clip(0, 1) * levels)
        assert np.abs(found[sample] - expected).max() <= 1
    assert np.array_equal(found, test)
    found, _ = read("set-window-3", Published(source, resident=2**20), alone)
    low, high = np.percentile(images, (3, 97))
    reach = max(high - images.mean(), images.mean() - low)
    expected = np.rint((0.5 + (images.clip(low, high) - images.mean()) / (2 * reach)) * levels)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("text", ["window", "set-window"])
def test_one_grey_is_in_the_middle(tmp_path, alone, text):
    write_dicom(tmp_path / "sick" / "a.dcm", np.full((8, 8), 300, np.uint16), **{**FILE, **CT})
    write_dicom(tmp_path / "well" / "b.dcm", np.full((8, 8), 300, np.uint16), **{**FILE, **CT})
    found, _ = read(text, Published(Opening().source(str(tmp_path)), resident=2**20), alone)
    assert (found == 128).all()


def test_an_image_of_mostly_one_value_keeps_the_others(tmp_path, alone):
    pixels = np.zeros((20, 20), np.uint16)
    pixels[0, 0] = 700
    write_dicom(tmp_path / "sick" / "a.dcm", pixels, **FILE)
    found, _ = read("window-1", Published(Opening().source(str(tmp_path)), resident=2**20), alone)
    assert (found[0, 0, 0, 0], found.sum()) == (255, 255)


def test_windows_of_ct_are_refused_where_nothing_says_that_it_is_ct(tmp_path, alone):
    magnetic = Opening().source(series(tmp_path / "mr", Modality="MR"))
    unspecified = Opening().source(series(tmp_path / "us", RescaleType="US"))
    for source in (magnetic, unspecified, ToySource(8)):
        with pytest.raises(UsageError, match=r"lung-window is for CT in DICOM or NIfTI .* take window-0.5"):
            read("lung-window", Published(source, resident=2**20), alone)
    said = Opening().source(series(tmp_path / "hu", Modality="OT", RescaleType="HU"))
    read("lung-window", Published(said, resident=2**20), alone)


def test_what_was_changed_since_it_was_published_has_no_window(tmp_path, alone):
    source = Opening().source(series(tmp_path))
    changed = Published(source, resident=2**20).through(lambda ids, samples: samples)
    for samples in (changed, Published(source, lambda ids, samples: clean(ids, samples), resident=2**20)):
        with pytest.raises(UsageError, match="a window is for images as they are published"):
            read("window", samples, alone)
