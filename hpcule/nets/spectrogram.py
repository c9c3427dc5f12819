"""Recordings as networks and measures look at them: power spectra, log-mel bands, MFCC."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WINDOW_SECONDS = 0.032
BANDS = 40
COEFFICIENTS = 20
FLOOR = 1e-6
"""Added to a power before its logarithm: about 96 dB below a sine of full scale."""


def signals(images: Tensor) -> Tensor:
    """Recordings [b, 1, 1, T] of an unsigned 16-bit grid, in [0, 1], as signals [b, T] around 0, which is silence."""
    return images[:, 0, 0] * (65535 / 32768) - 1


def window_length(rate: int) -> int:
    """Samples of a window: the power of two next to 32 ms, at least 16."""
    return 1 << max(4, round(math.log2(WINDOW_SECONDS * rate)))


class Spectrogram(nn.Module):
    """Power spectra of Hann windows that overlap by half."""

    window: Tensor

    def __init__(self, rate: int) -> None:
        """Set up for recordings with `rate` samples a second."""
        super().__init__()
        self.length = window_length(rate)
        self.bins = self.length // 2 + 1
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map [b, T] to powers [b, bins, 1 + T // hop]; windows are centred, with zeros around the signal."""
        spectrum = torch.stft(
            signal,
            self.length,
            self.length // 2,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()


class LogMel(nn.Module):
    """Natural logarithms of the powers in triangular bands of equal width in mel, from 0 Hz to half the rate."""

    filters: Tensor

    def __init__(self, rate: int) -> None:
        """Set up for recordings with `rate` samples a second."""
        super().__init__()
        self.spectrogram = Spectrogram(rate)
        self.features = min(BANDS, self.spectrogram.length // 4)
        self.register_buffer("filters", mel_filters(rate, self.spectrogram.bins, self.features), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map [b, T] to [b, bands, 1 + T // hop]."""
        return self.of_power(self.spectrogram(signal))

    def of_power(self, power: Tensor) -> Tensor:
        """Map power spectra [..., bins, L] to [..., bands, L]."""
        bands: Tensor = torch.log(self.filters @ power + FLOOR)
        return bands


class MFCC(nn.Module):
    """The first coefficients of an orthonormal cosine transform (DCT-II) over the log-mel bands."""

    transform: Tensor

    def __init__(self, rate: int) -> None:
        """Set up for recordings with `rate` samples a second."""
        super().__init__()
        self.log_mel = LogMel(rate)
        bands = self.log_mel.features
        self.features = min(COEFFICIENTS, bands)
        place, order = torch.arange(bands) + 0.5, torch.arange(self.features)[:, None]
        transform = torch.cos(math.pi / bands * place * order) * math.sqrt(2 / bands)
        transform[0] /= math.sqrt(2)
        self.register_buffer("transform", transform, persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map [b, T] to [b, coefficients, 1 + T // hop]."""
        coefficients: Tensor = self.transform @ self.log_mel(signal)
        return coefficients


def mel_filters(rate: int, bins: int, bands: int) -> Tensor:
    """float32 [bands, bins], triangles of height 1; a mel is 2595 log10(1 + Hz / 700) (O'Shaughnessy 1987)."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    filters: Tensor = torch.minimum(rising, falling).clamp(min=0).float()
    return filters
