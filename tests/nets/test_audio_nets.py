import math

import numpy as np
import pytest
import torch
from slowly import slow_but
from torch import nn

from hpcule.config.errors import UsageError
from hpcule.nets import AUDIO_NETS, NETS, build
from hpcule.nets.spectrogram import FLOOR, MFCC, LogMel, Spectrogram, mel_filters, signals, window_length

RATE = 8000


def net(name, *, classes=5, seed=3, rate=RATE):
    return build(name, channels=1, classes=classes, size=(1, 2000), seed=seed, rate=rate)


def slow_power(signal, length):
    """Hann windows over the zero-padded signal, one discrete Fourier sum after the other."""
    padded = np.pad(signal, length // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    starts = range(0, len(padded) - length + 1, length // 2)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length)
    return np.stack([np.abs(turn @ (window * padded[start : start + length])) ** 2 for start in starts], axis=1)


@pytest.mark.parametrize("samples", [1, 255, 256, 1000])
def test_spectrogram_equals_slow_sums(samples):
    signal = np.random.default_rng(0).uniform(-1, 1, samples)
    found = Spectrogram(RATE)(torch.from_numpy(signal).float()[None])[0]
    slow = slow_power(signal, 256)
    assert found.shape == slow.shape == (129, 1 + samples // 128)
    np.testing.assert_allclose(found, slow, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("rate", "length"), [(8000, 256), (16000, 512), (11025, 256), (44100, 1024), (100, 16)])
def test_windows_last_about_32_milliseconds(rate, length):
    assert window_length(rate) == length
    assert (mel_filters(rate, length // 2 + 1, LogMel(rate).features).sum(1) > 0).all()


def test_mel_bands_are_triangles_of_equal_width_in_mel():
    filters = mel_filters(RATE, 1025, 40).numpy()
    mel = 2595 * np.log10(1 + np.linspace(0, RATE / 2, 1025) / 700)
    step = mel[-1] / 41
    for band in range(40):
        slow = np.maximum(0, 1 - np.abs(mel - (band + 1) * step) / step)
        # The triangles are straight in Hz: between their corners they differ a little.
        np.testing.assert_allclose(filters[band], slow, atol=0.08)
        assert ((filters[band] > 0) == (slow > 0))[2:-2].mean() > 0.99


def test_log_mel_and_mfcc_equal_slow_references():
    signal = np.random.default_rng(1).uniform(-0.5, 0.5, 700)
    tensor = torch.from_numpy(signal).float()[None]
    mel = np.log(mel_filters(RATE, 129, 40).numpy() @ slow_power(signal, 256) + FLOOR)
    np.testing.assert_allclose(LogMel(RATE)(tensor)[0], mel, atol=1e-3)
    slow = np.zeros((20, mel.shape[1]))
    for k in range(20):
        for band in range(40):
            slow[k] += mel[band] * math.cos(math.pi * k * (band + 0.5) / 40) * math.sqrt((2 if k else 1) / 40)
    np.testing.assert_allclose(MFCC(RATE)(tensor)[0], slow, atol=5e-3)


def test_silence_is_zero_and_full_scale_is_one():
    levels = torch.tensor([0, 32768, 65535], dtype=torch.float32)
    found = signals((levels / 65535).view(1, 1, 1, 3))
    np.testing.assert_allclose(found[0], [-1, 0, 32767 / 32768], atol=1e-6)


@pytest.mark.parametrize("name", AUDIO_NETS)
@pytest.mark.parametrize(("samples", "rate"), [(2000, 8000), (90, 8000), (5000, 44100), (1, 1000)])
def test_every_net_learns_from_every_length_and_rate(name, samples, rate):
    torch.manual_seed(0)
    network = net(name, rate=rate)
    logits = network(torch.rand(3, 1, 1, samples))
    assert logits.shape == (3, 5)
    (logits * torch.randn(3, 5)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    if samples > 1000:
        assert sum(p.grad.abs().sum() > 0 for p in network.parameters()) == len(list(network.parameters()))


@pytest.mark.parametrize("name", slow_but(["mel-cnn", "wave-gru"], AUDIO_NETS))
def test_every_net_tells_tones_apart(name):
    rng = np.random.default_rng(0)
    labels = torch.arange(24) % 3
    tones = np.sin(
        2 * np.pi * (400 + 500 * labels.numpy()[:, None]) * np.arange(1500) / RATE + rng.uniform(0, 6, (24, 1))
    )
    images = torch.from_numpy((0.3 * tones + rng.normal(0, 0.05, tones.shape) + 1) / 2).float().view(24, 1, 1, 1500)
    network = net(name, classes=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network(images).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("name", AUDIO_NETS)
def test_initial_weights_depend_on_the_seed_alone(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(net(name, seed=5).parameters())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, net(name, seed=5).parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, net(name, seed=6).parameters(), strict=True))


@pytest.mark.parametrize("name", AUDIO_NETS)
def test_they_are_small(name):
    assert sum(p.numel() for p in net(name, classes=10).parameters()) < 300_000


def test_networks_are_for_images_or_for_recordings():
    with pytest.raises(
        UsageError, match="network resnet18 is not for recordings; valid for them are wave-cnn, wave-gru"
    ):
        net("resnet18")
    with pytest.raises(
        UsageError, match="network mel-cnn is not for images; valid for them are convnet, fast, resnet-tiny"
    ):
        build("mel-cnn", channels=1, classes=5, size=(28, 28), seed=0)
    with pytest.raises(UsageError, match="unknown network 'mel-gruu': did you mean 'mel-gru'"):
        net("mel-gruu")
    assert not set(AUDIO_NETS) & set(NETS)
