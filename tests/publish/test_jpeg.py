"""What JPEG leaves of a perturbation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hpcule.data.source import Native
from hpcule.publish.jpeg import COSINE, SHARE, decode_jpeg, encode_jpeg, warning, what_remains


def smooth(channels, seed=0):
    """[C, 48, 56] of 40..216, as photographs are."""
    coarse = np.random.default_rng(seed).integers(40, 217, (channels, 6, 7), dtype=np.uint8)
    resized = [Image.fromarray(plane).resize((56, 48), Image.Resampling.BICUBIC) for plane in coarse]
    return np.stack([np.asarray(plane) for plane in resized])


def perturbed(clean, delta):
    return np.clip(clean.astype(int) + delta, 0, 255).astype(np.uint8)


def numbers(clean, delta, quality):
    published = Native(perturbed(clean, delta))
    return what_remains(Native(clean), published, decode_jpeg(encode_jpeg(published.pixels, quality)), quality)


@pytest.mark.parametrize("channels", [1, 3])
def test_encoding_keeps_colours_at_full_resolution_and_no_metadata(channels):
    pixels = smooth(channels)
    data = encode_jpeg(pixels, 90)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}
    assert decode_jpeg(data).shape == pixels.shape
    assert np.abs(decode_jpeg(data).astype(int) - pixels).mean() < 2


def test_fine_noise_is_lost_where_coarse_patterns_stay():
    clean, rng = smooth(1), np.random.default_rng(1)
    fine = rng.choice([-8, 8], clean.shape)
    coarse = np.kron(rng.choice([-8, 8], (1, 6, 7)), np.ones((8, 8), int))
    of_fine, of_coarse = ([float(numbers(clean, delta, q)[SHARE]) for q in (95, 75, 30)] for delta in (fine, coarse))
    assert of_fine == sorted(of_fine, reverse=True)
    assert of_fine[0] > 0.9
    assert of_fine[2] < 0.3
    assert min(of_coarse) > 0.9


def test_figures_are_those_of_a_slow_reference():
    clean, delta = smooth(3), np.random.default_rng(2).integers(-8, 9, (3, 48, 56))
    published = perturbed(clean, delta)
    made = [np.asarray(Image.open(io.BytesIO(encode_jpeg(pixels, 60)))).astype(float) for pixels in (clean, published)]
    rest, change = (made[1] - made[0]).ravel(), (published.astype(float) - clean).transpose(1, 2, 0).ravel()
    found = numbers(clean, delta, 60)
    assert float(found[SHARE]) == pytest.approx(rest @ change / (change @ change), abs=1e-3)
    cosine = rest @ change / np.linalg.norm(rest) / np.linalg.norm(change)
    assert float(found[COSINE]) == pytest.approx(cosine, abs=1e-3)


def test_nothing_is_said_of_what_has_no_perturbation():
    assert numbers(smooth(3), 0, 50) == {}
    assert warning([{}, {"largest_change": "3"}], 50, 8) is None


def test_the_warning_takes_means_and_the_largest_change():
    files = [
        {SHARE: "0.5", COSINE: "0.8", "largest_change": "20"},
        {SHARE: "0.3", COSINE: "0.6", "largest_change": "31"},
        {"largest_change": "99"},
    ]
    text = warning(files, 75, 8)
    assert "quality 75 leaves 40% of the perturbation (cosine 0.70) in 2 files" in text
    assert "up to 31 levels, where the budget is 8" in text
    assert "recipes=[plain,jpeg-75]" in text
