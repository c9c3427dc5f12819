"""Compressions that can be decoded here, with what is installed."""

from __future__ import annotations

import importlib.util

_PILLOW = {"JPEG": "jpg", "PNG": "zlib", "TIFF (compressed)": "libtiff", "WebP": "webp"}
_DICOM = (
    "RLELossless",
    "JPEGBaseline8Bit",
    "JPEGExtended12Bit",
    "JPEGLossless",
    "JPEGLosslessSV1",
    "JPEGLSLossless",
    "JPEGLSNearLossless",
    "JPEG2000Lossless",
    "JPEG2000",
    "HTJ2KLossless",
    "HTJ2K",
)


def codecs() -> dict[str, bool]:
    """Whether each compression can be decoded: of image files, of FLAC, and of DICOM where pydicom is installed."""
    from PIL import features

    found = {name: bool(features.check(feature)) for name, feature in _PILLOW.items()}
    found["FLAC"] = importlib.util.find_spec("soundfile") is not None
    return {**found, **_dicom_codecs()} if importlib.util.find_spec("pydicom") else found


def _dicom_codecs() -> dict[str, bool]:
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    return {f"DICOM {name}": get_decoder(getattr(uid, name)).is_available for name in _DICOM}
