import math

import numpy as np
import pytest
import scipy.linalg
import torch

from hpcule.measure.audibility import Audibility, Moments, frechet_distance, log_spectral_distance, snr
from hpcule.nets.spectrogram import FLOOR, LogMel

RATE = 8000


def recordings(n=7, samples=900, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(200, samples + 1, n)
    clean = np.full((n, 1, 1, samples), 32768, np.uint16)
    published = clean.copy()
    for row, length in enumerate(lengths):
        clean[row, 0, 0, :length] = 32768 + np.rint(rng.normal(0, 3000, length))
        change = rng.normal(0, 200, length) if row != 2 else 0  # one stays as it is
        published[row, 0, 0, :length] = clean[row, 0, 0, :length] + np.rint(change)
    return clean, published, lengths


def test_snr_is_a_ratio_of_powers_in_decibels():
    signal = np.sin(np.arange(800) * 0.3)
    assert snr(signal, 1.1 * signal) == pytest.approx(20)
    assert snr(signal, signal + np.sqrt(np.mean(signal**2) / 2) * np.resize([1, -1], 800)) == pytest.approx(
        3.0103, abs=1e-3
    )
    assert snr(signal, signal) == math.inf
    assert snr(np.zeros(9), np.zeros(9)) == math.inf
    assert snr(np.zeros(9), np.ones(9)) == -math.inf


def test_log_spectral_distance_equals_a_slow_one():
    rng = np.random.default_rng(0)
    first, second = rng.exponential(size=(2, 129, 5))
    frames = []
    for frame in range(5):
        squares = [
            (10 * math.log10(second[k, frame] + FLOOR) - 10 * math.log10(first[k, frame] + FLOOR)) ** 2
            for k in range(129)
        ]
        frames.append(math.sqrt(sum(squares) / 129))
    found = log_spectral_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(sum(frames) / 5)
    # A signal at a tenth of the power is 10 dB away at every frequency.
    assert log_spectral_distance(torch.full((4, 3), 1e3), torch.full((4, 3), 1e2)) == pytest.approx(10, abs=1e-4)


def moments_of(vectors):
    moments = Moments(vectors.shape[1])
    for part in np.array_split(vectors, 3):
        moments.update(part)
    return moments


def test_frechet_distance_equals_a_matrix_root():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    second = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 0.5
    one, other = moments_of(first), moments_of(second)
    np.testing.assert_allclose(one.mean, first.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(one.covariance, np.cov(first.T, bias=True), atol=1e-10)
    c1, c2 = np.cov(first.T, bias=True), np.cov(second.T, bias=True)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(other, one) == pytest.approx(expected)
    assert frechet_distance(one, moments_of(first + 3.0)) == pytest.approx(6 * 9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_a_collection_is_measured_on_its_own_samples_alone():
    clean, published, lengths = recordings()
    whole = Audibility(RATE)
    whole.update(clean[:3], published[:3], lengths[:3])
    whole.update(clean[3:], published[3:], lengths[3:])
    found = whole.result()
    ratios, distances, frames = [], [], ([], [])
    for row, length in enumerate(lengths):
        pair = [(x[row, 0, 0, :length].astype(np.float64) - 32768) / 32768 for x in (clean, published)]
        if row != 2:
            ratios.append(snr(*pair))
        tensors = [torch.from_numpy(x).float()[None] for x in pair]
        distances.append(log_spectral_distance(*(LogMel(RATE).spectrogram(t)[0] for t in tensors)))
        for kept, tensor in zip(frames, tensors, strict=True):
            kept.append(LogMel(RATE)(tensor)[0].numpy().T.astype(np.float64))
    change = published.astype(np.int64) - clean
    assert found == {
        "snr_db": pytest.approx(np.mean(ratios)),
        "identical_share": pytest.approx(1 / 7),
        "log_spectral_db": pytest.approx(np.mean(distances)),
        "frechet_log_mel": pytest.approx(frechet_distance(*(moments_of(np.concatenate(f)) for f in frames)), rel=1e-6),
        "linf_levels": np.abs(change).max(),
        "changed_share": pytest.approx(np.count_nonzero(change) / lengths.sum()),
        "n": 7,
    }
    padded = Audibility(RATE)
    wider = [np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 500)), constant_values=32768) for x in (clean, published)]
    padded.update(*wider, lengths)
    assert padded.result() == pytest.approx(found)


def test_nothing_changed():
    clean, _, lengths = recordings()
    measured = Audibility(RATE)
    measured.update(clean, clean, lengths)
    result = measured.result()
    assert result["snr_db"] is None
    assert result["identical_share"] == 1
    assert result["log_spectral_db"] == result["linf_levels"] == result["changed_share"] == 0
    assert result["frechet_log_mel"] == pytest.approx(0, abs=1e-6)


def test_louder_noise_is_further_away():
    clean, published, lengths = recordings()
    far = (clean + 4 * (published.astype(np.int64) - clean)).astype(np.uint16)
    results = []
    for other in (published, far):
        measured = Audibility(RATE)
        measured.update(clean, other, lengths)
        results.append(measured.result())
    near, loud = results
    assert near["snr_db"] - loud["snr_db"] == pytest.approx(20 * math.log10(4))
    assert near["log_spectral_db"] < loud["log_spectral_db"]
    assert near["frechet_log_mel"] < loud["frechet_log_mel"]
