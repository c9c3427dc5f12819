"""One recording as its file holds it: PCM of 8, 16 or 24 bits, any number of channels, WAV or FLAC.

WAV files are read and written by Python's own `wave`; FLAC, and WAV files with an extended header where `wave` does not
know it, by `soundfile`.
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, UsageError
from hpcule.data.source import Recording, Samples
from hpcule.data.sources.layout import UnreadableError

SILENCE = 1 << 15
"""Where 0 of a signed 16-bit sample lies on the unsigned grid."""
_SUBTYPES = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}
_EXTENSIBLE = "unknown format: 65534"
_HIGHEST_RATE = 1_000_000
"""Samples a second; of what claims more, the header is damaged."""
_EXTENDED_FORMAT = 0xFFFE
_BLOCK = 1 << 20
_CONVERT = "convert it: `ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav`"


class RecordingHead(NamedTuple):
    """What a file's header says; `length` is in samples a channel."""

    format: Literal["wav", "flac"]
    rate: int
    bits: int
    channels: int
    length: int


@contextmanager
def opened(path: Path) -> Iterator[tuple[RecordingHead, Callable[[], npt.NDArray[np.int32]]]]:
    """Open a file: its head, and what reads its samples as `Recording` has them.

    Raises:
        UnreadableError: the file is damaged, found inside the block; the message names it.
        DataError: it is no PCM of 8, 16 or 24 bits.
    """
    try:
        if not path.is_file():  # a named pipe would be waited for
            raise OSError("no regular file")
        with path.open("rb") as file:
            valid = _valid_bits(file)
            if (recording := _by_wave(file)) is not None:
                with recording:
                    channels, width, rate, length, *_ = recording.getparams()
                    yield (
                        _checked(path, RecordingHead("wav", rate, 8 * width, channels, length)),
                        lambda: _frames(recording) & valid,
                    )
            else:
                with _soundfile().SoundFile(file) as sound:
                    bits = _SUBTYPES.get(sound.subtype, 0)
                    kind: Literal["wav", "flac"] = "flac" if sound.format == "FLAC" else "wav"
                    head = _checked(path, RecordingHead(kind, sound.samplerate, bits, sound.channels, sound.frames))
                    _find_last(sound)
                    yield head, lambda: _blocks(sound) & valid
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        if str(error).startswith(("unknown format", "unknown extended format")):
            raise DataError(f"{path} is no plain PCM ({error}); {_CONVERT}") from None
        reason = str(error) or "it ends too early"
        raise UnreadableError.of(path, reason) from None


def encode(recording: Recording) -> bytes:
    """The bytes of a file with nothing in it but the recording."""
    file, signal = io.BytesIO(), recording.samples.T
    if recording.format == "flac":
        subtype = "PCM_S8" if recording.bits == 8 else f"PCM_{recording.bits}"
        _soundfile().write(file, signal, recording.rate, format="FLAC", subtype=subtype)
        return file.getvalue()
    width = recording.bits // 8
    values = np.ascontiguousarray(signal, "<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]
    with wave.open(file, "wb") as out:
        out.setparams((signal.shape[1], width, recording.rate, len(signal), "NONE", ""))
        out.writeframes((values ^ 0x80 if width == 1 else values).tobytes())
    return file.getvalue()


def working(recording: Recording) -> Samples:
    """What methods and networks see: the mean of the channels, rounded to the unsigned 16-bit grid, uint16 [t]."""
    mean = np.rint(recording.samples.mean(axis=0, dtype=np.float64) / 2**16)
    mixed: Samples = (mean.clip(-SILENCE, SILENCE - 1) + SILENCE).astype(np.uint16)
    return mixed


def plain(signal: Samples, rate: int) -> Recording:
    """A recording on the unsigned 16-bit grid, uint16 [t], as mono 16-bit PCM in a WAV file."""
    samples = (signal.astype(np.int32) - SILENCE) << 16
    return Recording(samples[None], 16, rate, "wav")


def perturbed_recording(recording: Recording, delta: npt.NDArray[np.integer[Any]], epsilon: float) -> Recording:
    """The recording with one perturbation added to every channel, on its own grid and clipped to it.

    Args:
        recording: of t samples.
        delta: [t], in levels of 16 bits; rounded to the recording's own.
        epsilon: budget in levels of 16 bits, which is kept after rounding too.
    """
    step = 1 << (32 - recording.bits)
    bound, top = int(epsilon * 2**16 / step), 1 << (recording.bits - 1)
    change = np.rint(delta * (2**16 / step)).clip(-bound, bound).astype(np.int64)
    total = (recording.samples // step + change).clip(-top, top - 1)
    return recording._replace(samples=(total * step).astype(np.int32))


def _checked(path: Path, head: RecordingHead) -> RecordingHead:
    if head.bits not in (8, 16, 24):
        seen = f"has {head.bits} bits a sample" if head.bits else "is no plain PCM"
        raise DataError(f"{path} {seen}, and hpcule reads PCM of 8, 16 or 24; {_CONVERT}")
    if head.length == 0 or head.rate < 1 or head.channels < 1:
        raise OSError("no samples in it")
    most = path.stat().st_size // (head.channels * head.bits // 8) if head.format == "wav" else math.inf
    if not 0 < head.length <= most:
        raise OSError(f"its header promises {head.length} samples")
    if head.rate > _HIGHEST_RATE:
        raise OSError(f"its header promises {head.rate} samples a second")
    return head


def _valid_bits(file: BinaryIO) -> int:
    """Mask of those bits of a sample in 32 that count: a WAV file may store 12 or 20 in 16 or 24.

    The others should be 0, so nobody hears them, and may hold anything. All bits of what is no WAV file count.
    """
    riff, valid = file.read(12)[:4] == b"RIFF", 32
    while riff and len(start := file.read(8)) == 8:
        size = int.from_bytes(start[4:], "little")
        if start[:4] == b"fmt ":
            values = np.frombuffer(file.read(min(size, 20)).ljust(20, b"\0"), "<u2").tolist()
            valid = (values[9] if values[0] == _EXTENDED_FORMAT else 0) or values[7] or 32
            break
        file.seek(size + size % 2, io.SEEK_CUR)
    file.seek(0)
    return -(1 << max(0, 32 - valid))


def _by_wave(file: BinaryIO) -> wave.Wave_read | None:
    """The file as `wave` reads it, or None where it is for `soundfile`."""
    flac = file.read(4) == b"fLaC"
    file.seek(0)
    try:
        return None if flac else wave.open(file)
    except wave.Error as error:
        if str(error) != _EXTENSIBLE:
            raise
        file.seek(0)
        return None


def _frames(recording: wave.Wave_read) -> npt.NDArray[np.int32]:
    channels, width, _, length, *_ = recording.getparams()
    data = np.frombuffer(recording.readframes(length), np.uint8)
    if len(data) != width * channels * length:
        raise EOFError(f"{len(data) // (width * channels)} samples where its header says {length}")
    aligned = np.zeros((length * channels, 4), np.uint8)
    # 8 bits are unsigned in WAV: turning the highest bit makes them two's complement.
    aligned[:, 4 - width :] = data.reshape(-1, width) ^ (0x80 if width == 1 else 0)
    return aligned.view("<i4").reshape(length, channels).T.astype(np.int32)


def _find_last(sound: Any) -> None:
    """Look for the last sample that a header promises, before anything is as long as it says.

    Raises:
        EOFError: it is not there.
    """
    sound.seek(sound.frames - 1)
    if len(sound.read(1, dtype="int32")) != 1:
        raise EOFError(f"its header promises {sound.frames} samples")
    sound.seek(0)


def _blocks(sound: Any) -> npt.NDArray[np.int32]:
    """Block by block: a header may promise any number of samples."""
    parts = []
    while len(block := sound.read(_BLOCK, dtype="int32", always_2d=True)):
        parts.append(block)
    found = sum(map(len, parts))
    if found != sound.frames:
        raise EOFError(f"{found} samples where its header says {sound.frames}")
    return np.concatenate(parts).T


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise UsageError('FLAC and extended WAV files need soundfile: pip install "hpcule[audio]"') from None
    return soundfile
