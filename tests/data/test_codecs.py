from __future__ import annotations

import pytest

from hpcule.data.codecs import codecs


def test_image_formats_can_be_decoded():
    found = codecs()
    assert all(found[name] for name in ("JPEG", "PNG", "TIFF (compressed)", "WebP"))


def test_codecs_of_dicom_that_are_said_to_work_decode_a_sample_file():
    pytest.importorskip("pydicom")
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    samples = {
        "RLELossless": "MR_small_RLE.dcm",
        "JPEGBaseline8Bit": "SC_rgb_jpeg_dcmtk.dcm",
        "JPEGExtended12Bit": "JPGExtended.dcm",
        "JPEGLSLossless": "MR_small_jpeg_ls_lossless.dcm",
        "JPEG2000Lossless": "MR_small_jp2klossless.dcm",
    }
    found = codecs()
    for name, file in samples.items():
        if found[f"DICOM {name}"]:
            path = get_testdata_file(file, download=False)
            assert dcmread(path).pixel_array.size


def test_plug_ins_of_the_extras_are_found():
    pytest.importorskip("libjpeg")
    pytest.importorskip("openjpeg")
    pytest.importorskip("pylibjpeg")
    found = codecs()
    assert all(there for name, there in found.items() if name.startswith("DICOM"))
