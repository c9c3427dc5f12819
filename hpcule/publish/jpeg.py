"""JPEG, which a perturbation does not survive whole: at what quality, and how much of it is left.

What is left of a perturbation is the difference between two encoded images, the published and the clean one: so what
JPEG does to the image itself does not count.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcule.data.source import Native, Samples

JPEG = (".jpg", ".jpeg")
SHARE, COSINE = "jpeg_share", "jpeg_cosine"
"""Columns of a file's record."""


def encode_jpeg(pixels: Samples, quality: int) -> bytes:
    """An image uint8 [C, H, W] of one or three channels as JPEG, colours at full resolution (4:4:4)."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, format="JPEG", quality=quality, subsampling="4:4:4")
    return file.getvalue()


def decode_jpeg(data: bytes) -> Samples:
    """Back to uint8 [C, H, W]."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def what_remains(clean: Native, published: Native, seen: Samples, quality: int) -> dict[str, str]:
    """How much of a perturbation an encoded image holds.

    Args:
        clean: the image.
        published: the same with its perturbation.
        seen: `published`, encoded and decoded.
        quality: of the encoding.

    Returns:
        The perturbation's share that is left, as the length of what is left along it over its own (1: all of it), and
        the cosine between the two, which shows how much else JPEG has made of it. Nothing without a perturbation.
    """
    delta = _difference(published.pixels, clean.pixels)
    rest = _difference(seen, decode_jpeg(encode_jpeg(clean.pixels, quality)))
    along, length = float((delta * rest).sum()), float(np.square(delta).sum())
    if not length:
        return {}
    lengths = np.sqrt(length * np.square(rest).sum())
    return {SHARE: f"{along / length:.3f}", COSINE: f"{along / lengths if lengths else 0:.3f}"}


def warning(numbers: Sequence[Mapping[str, str]], quality: int, budget: float) -> str | None:
    """What encoding has cost the protected files, from their records' numbers; None where none was encoded."""
    encoded = [one for one in numbers if SHARE in one]
    if not encoded:
        return None
    share, cosine = (np.mean([float(one[name]) for one in encoded]) for name in (SHARE, COSINE))
    largest = max(int(one["largest_change"]) for one in encoded)
    return (
        f"JPEG at quality {quality} leaves {share:.0%} of the perturbation (cosine {cosine:.2f}) in {len(encoded):,} "
        f"files, and with its own loss changes values by up to {largest} levels, where the budget is {budget:g}. "
        f"What protection is left: hpcule evaluate STORE --data DATA --set recipes=[plain,jpeg-{quality}]"
    )


def _difference(one: Samples, other: Samples) -> npt.NDArray[np.float64]:
    return np.subtract(one, other, dtype=np.float64)
