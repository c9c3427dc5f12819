from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from hpcule.victim.countermeasures.squeeze import luminance, squeeze, squeezed_shape
from hpcule.victim.countermeasures.table import Applied, countermeasure


def samples(shape=(3, 3, 20, 24), dtype=np.uint8):
    """Smooth images with some noise, as photographs are."""
    rng = np.random.default_rng(0)
    levels = np.iinfo(dtype).max
    waves = np.sin(np.arange(shape[-1]) / 5) * np.cos(np.arange(shape[-2]) / 7)[:, None]
    values = 0.5 + 0.3 * waves * rng.uniform(-1, 1, (*shape[:2], 1, 1)) + rng.normal(0, 0.03, shape)
    return np.rint(values.clip(0, 1) * levels).astype(dtype)


def through(text, images, levels=255):
    return squeeze(images, [countermeasure(text)], levels)


def pillow(images, change):
    """Each image through a function of Pillow's images."""
    return np.stack([np.moveaxis(np.asarray(change(Image.fromarray(np.moveaxis(x, 0, -1)))), -1, 0) for x in images])


def test_grayscale_is_pillows_luminance_in_all_channels():
    images = samples()
    assert np.array_equal(through("grayscale", images), pillow(images, lambda i: i.convert("L").convert("RGB")))
    single = samples((2, 1, 8, 8))
    assert through("grayscale", single) is single


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows(quality):
    def recompress(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    images = samples()
    found = through(f"jpeg-{quality}", images)
    assert np.array_equal(found, pillow(images, recompress))
    assert not np.array_equal(found, images)


def test_jpeg_keeps_a_single_channel_single():
    found = through("jpeg", samples((2, 1, 16, 16)))
    assert found.shape == (2, 1, 16, 16)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_compressed_as_their_highest_eight(channels):
    images = samples((2, channels, 16, 16), np.uint16)
    eight = np.rint(images / 257).astype(np.uint8)
    assert np.array_equal(through("jpeg-50", images, 65535), through("jpeg-50", eight).astype(int) * 257)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_resized_to_the_last(channels):
    images = samples((2, channels, 20, 24), np.uint16)
    found = through("size-16", images, 65535)
    assert (found.shape, found.dtype) == ((2, channels, 16, 16), np.uint16)
    eight = through("size-16", np.rint(images / 257).astype(np.uint8))
    assert np.abs(found / 257 - eight).max() <= 1.5
    for plane, slow in zip(found.reshape(-1, 16, 16), images.reshape(-1, 20, 24), strict=True):
        floats = Image.fromarray(slow.astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC)
        assert np.array_equal(plane, np.rint(np.asarray(floats)).clip(0, 65535))


@pytest.mark.parametrize("pixels", [16, 40])
def test_sizes_are_pillows_bicubic(pixels):
    images = samples()
    bicubic = pillow(images, lambda image: image.resize((pixels, pixels), Image.Resampling.BICUBIC))
    assert np.array_equal(through(f"size-{pixels}", images), bicubic)
    assert squeezed_shape(countermeasure(f"size-{pixels}"), (3, 20, 24)) == bicubic.shape[1:]


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_bit_depth_keeps_so_many_values(bits):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = through(f"bit-depth-{bits}", ramp)
    assert np.array_equal(np.unique(found), np.arange(0, 256, 256 >> bits))
    assert np.all((ramp.astype(int) - found >= 0) & (ramp.astype(int) - found < 256 >> bits))
    deep = samples((1, 1, 8, 8), np.uint16)
    assert len(np.unique(through(f"bit-depth-{bits}", deep, 65535))) <= 2**bits


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_filter(sigma):
    images = samples()
    slow = [[gaussian_filter(c.astype(float), sigma, mode="mirror", radius=int(4 * sigma)) for c in x] for x in images]
    found = through(f"blur-{sigma}", images)
    assert np.abs(found - np.array(slow)).max() <= 0.5 + 1e-3
    assert np.abs(found.astype(int) - images).max() > 3


DEEP = (np.uint16, 65535)
SHALLOW = (np.uint8, 255)


@pytest.mark.parametrize(("dtype", "levels"), [SHALLOW, DEEP])
@pytest.mark.parametrize(("channels", "percent"), [(1, 30), (3, 75)])
def test_lowpass_leaves_the_lowest_cosines(dtype, levels, channels, percent):
    images = samples((2, channels, 20, 24), dtype)
    found = through(f"lowpass-{percent}", images, levels)
    cosines = dctn(images.astype(float), axes=(2, 3), norm="ortho")
    cosines[:, :, round(20 * percent / 100) :] = 0
    cosines[:, :, :, round(24 * percent / 100) :] = 0
    slow = idctn(cosines, axes=(2, 3), norm="ortho").clip(0, levels)
    assert found.dtype == dtype
    assert np.abs(found - slow).max() <= 0.5 + levels * 1e-5
    assert np.abs(found.astype(int) - images).max() > levels / 100


@pytest.mark.parametrize(("dtype", "levels"), [SHALLOW, DEEP])
def test_standardised_images_have_one_mean_and_deviation(dtype, levels):
    images = samples((4, 3, 20, 24), dtype)
    images[3, 0] = 7
    found = through("zscore", images, levels)
    assert (found[3, 0].astype(int) - levels // 2 <= 1).all()
    planes = found.reshape(12, -1)[np.arange(12) != 9].astype(float)
    np.testing.assert_allclose(planes.mean(1), levels / 2, rtol=0.01)
    np.testing.assert_allclose(planes.std(1), levels / 6, rtol=0.05)
    darker = (images[:3] // 3 + levels // 4).astype(dtype)
    assert np.abs(through("zscore", darker, levels).astype(int) - found[:3]).max() < levels * 0.05


@pytest.mark.parametrize(("dtype", "levels"), [SHALLOW, DEEP])
@pytest.mark.parametrize("channels", [1, 3])
def test_equalised_luminance_is_as_likely_everywhere(dtype, levels, channels):
    images = samples((3, channels, 20, 24), dtype)
    images[2] = 9
    found = through("equalize", images, levels)
    assert np.array_equal(found[2], images[2])
    for before, after in zip(images[:2], found, strict=False):
        light, new = luminance(before[None])[0, 0], luminance(after[None])[0, 0]
        lowest = (light == light.min()).sum()
        slow = [((light <= value).sum() - lowest) / (light.size - lowest) * levels for value in light.ravel()]
        # Colours may be cut off at the ends.
        inside = ((after > 0) & (after < levels)).all(0).ravel()
        assert np.abs(new.ravel() - np.array(slow))[inside].max() <= 1.5
        assert inside.mean() > 0.3


def test_steps_act_in_their_order():
    images = samples()
    one = squeeze(images, [Applied("bit-depth", 2), Applied("grayscale", None)], 255)
    other = squeeze(images, [Applied("grayscale", None), Applied("bit-depth", 2)], 255)
    assert not np.array_equal(one, other)
    assert len(np.unique(other)) <= 4 < len(np.unique(one))


def test_no_step_changes_what_it_was_given():
    images = samples()
    kept = images.copy()
    for text in ("grayscale", "jpeg-10", "bit-depth-2", "blur-1", "lowpass", "zscore", "equalize", "size-16"):
        through(text, images)
    assert np.array_equal(images, kept)
