"""Small classifiers of recordings: a front end (raw waveform, log-mel, MFCC) and what reads its frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpcule.nets.spectrogram import MFCC, LogMel, signals, window_length

WIDTH = 64


class Frames(nn.Module):
    """A learnt front end: frames of the raw waveform, as long and as far apart as those of a spectrogram."""

    features = WIDTH

    def __init__(self, rate: int) -> None:
        super().__init__()
        window = window_length(rate)
        self.filters = nn.Conv1d(1, WIDTH, window, stride=window // 2, padding=window // 2, bias=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map [b, T] to [b, WIDTH, 1 + T // hop]."""
        frames: Tensor = self.filters(signal.unsqueeze(1))
        return frames


class TemporalConvolution(nn.Module):
    """Three convolutions along time with max-pooling between them, and the mean over time."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        widths = (features, WIDTH, 2 * WIDTH, 2 * WIDTH)
        self.layers = nn.Sequential(nn.ReLU())
        for inputs, outputs in pairwise(widths):
            self.layers.append(nn.Conv1d(inputs, outputs, 5, padding=2, bias=False))
            self.layers.append(nn.BatchNorm1d(outputs)).append(nn.ReLU())
            self.layers.append(nn.MaxPool1d(2, ceil_mode=True))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [b, features, L] to logits [b, classes]."""
        logits: Tensor = self.linear(self.layers(frames).mean(2))
        return logits


class SpectralConvolution(nn.Module):
    """Three 3x3 convolutions on time and frequency with max-pooling between them, and the mean over both."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        widths = (1, WIDTH // 4, WIDTH // 2, WIDTH)
        self.layers = nn.Sequential()
        for inputs, outputs in pairwise(widths):
            self.layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
            self.layers.append(nn.BatchNorm2d(outputs)).append(nn.ReLU())
            self.layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [b, features, L] to logits [b, classes]."""
        logits: Tensor = self.linear(self.layers(frames.unsqueeze(1)).mean((2, 3)))
        return logits


class Recurrent(nn.Module):
    """A GRU in both directions, and the mean over time."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, WIDTH, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * WIDTH, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [b, features, L] to logits [b, classes]."""
        hidden, _ = self.gru(frames.transpose(1, 2))
        logits: Tensor = self.linear(hidden.mean(1))
        return logits


class Transformer(nn.Module):
    """Two layers of self-attention over frames with sinusoidal positions, and the mean over time."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.linear = nn.Linear(WIDTH, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [b, features, L] to logits [b, classes]."""
        hidden = self.embed(frames.transpose(1, 2)) + positions(frames.shape[2], frames.device)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.linear(hidden.mean(1))
        return logits


class AudioNet(nn.Module):
    """A front end, BatchNorm for each of its features, and what reads the frames."""

    def __init__(self, front: nn.Module, features: int, back: nn.Module) -> None:
        super().__init__()
        self.front, self.norm, self.back = front, nn.BatchNorm1d(features), back

    def forward(self, images: Tensor) -> Tensor:
        """Map recordings [b, 1, 1, T] in [0, 1] to logits [b, classes]."""
        # Powers span ten orders of magnitude: too much for what autocast would make of them.
        with torch.autocast(images.device.type, enabled=False):
            frames = self.front(signals(images.float()))
        logits: Tensor = self.back(self.norm(frames))
        return logits


def positions(length: int, device: torch.device) -> Tensor:
    """float32 [length, WIDTH]: sines and cosines of wavelengths from 2 pi to 20,000 pi (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, WIDTH, 2, device=device) * (-math.log(10_000) / WIDTH))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


_FRONTS: dict[str, type[Frames] | type[LogMel] | type[MFCC]] = {"wave": Frames, "mel": LogMel, "mfcc": MFCC}
_BACKS: dict[str, Callable[[int, int], nn.Module]] = {
    "cnn": SpectralConvolution,
    "gru": Recurrent,
    "transformer": Transformer,
}
AUDIO_NETS = tuple(f"{front}-{back}" for front in _FRONTS for back in _BACKS)
"""Names of all networks for recordings."""


def audio_net(name: str, classes: int, rate: int) -> AudioNet:
    """A network of `AUDIO_NETS` for recordings with `rate` samples a second."""
    front_name, back_name = name.split("-")
    front = _FRONTS[front_name](rate)
    # Learnt frames have no order that a convolution over frequency could use.
    back = TemporalConvolution if name == "wave-cnn" else _BACKS[back_name]
    return AudioNet(front, front.features, back(front.features, classes))
