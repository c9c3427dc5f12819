"""Frames are what a viewer shows: rescaled, windowed, upright in polarity, in colour where files have colours."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from dicoms import NAME, item, noise, shown, write_dicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.dicom import DicomSource, holds_dicom
from hpcule.data.subset import Subset

WINDOW = {"WindowCenter": 40, "WindowWidth": 400}
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}
GREYS = {
    "12 bits unsigned": ({"bits": 12, **WINDOW, **CT}, (0, 4095, np.uint16)),
    "16 bits signed": (WINDOW, (-2000, 2000, np.int16)),
    "13 bits signed": ({"bits": 13, **WINDOW}, (-4096, 4095, np.int16)),
    "8 bits": ({"WindowCenter": 127, "WindowWidth": 254}, (0, 255, np.uint8)),
    "dark is high": ({"stored_as": "MONOCHROME1", "bits": 10, **WINDOW}, (0, 1023, np.uint16)),
    "slope below 0": ({"RescaleSlope": -0.5, "RescaleIntercept": 100, **WINDOW}, (0, 900, np.uint16)),
    "both": ({"stored_as": "MONOCHROME1", "RescaleSlope": -0.5, "RescaleIntercept": 9, **WINDOW}, (0, 900, np.uint16)),
    "exact": ({"VOILUTFunction": "LINEAR_EXACT", **WINDOW}, (-300, 300, np.int16)),
    "sigmoid": ({"VOILUTFunction": "SIGMOID", **WINDOW}, (-900, 900, np.int16)),
    "several windows": ({"WindowCenter": [40, 1], "WindowWidth": [400, 2]}, (-300, 300, np.int16)),
}


@pytest.mark.parametrize("case", GREYS)
def test_a_window_shows_what_the_standard_says(tmp_path, case):
    tags, (low, high, dtype) = GREYS[case]
    pixels = noise(9, 7, low=low, high=high, dtype=dtype)
    dataset = write_dicom(tmp_path / "data" / "a.dcm", pixels, **tags)
    dataset.WindowCenter = np.ravel(dataset.WindowCenter)[0]
    dataset.WindowWidth = np.ravel(dataset.WindowWidth)[0]
    source = Opening().source(str(tmp_path / "data"))
    assert (source.kind, source.name, source.shape, source.levels) == ("dicom", "dicom", (1, 9, 7), 255)
    expected = [[shown(int(value), dataset) for value in row] for row in pixels]
    # A value that lies between two levels may go to either by the last bit of a sum.
    assert np.abs(source.read(np.array([0]))[0, 0].astype(int) - expected).max() <= 1
    assert (source.read(np.array([0]))[0, 0] == expected).mean() > 0.95
    assert np.array_equal(source.native(0).pixels[0], pixels)


@pytest.mark.parametrize("case", [name for name in GREYS if name != "sigmoid"])
def test_a_unit_is_one_level_shown(tmp_path, case):
    tags, (low, high, dtype) = GREYS[case]
    dataset = write_dicom(tmp_path / "data" / "a.dcm", noise(4, 4, low=low, high=high, dtype=dtype), **tags)
    width = float(np.ravel(dataset.WindowWidth)[0]) - (dataset.get("VOILUTFunction") != "LINEAR_EXACT")
    unit = DicomSource(tmp_path / "data", "all").native(0).grid.unit
    sign = (-1 if dataset.get("RescaleSlope", 1) < 0 else 1) * (-1 if tags.get("stored_as") else 1)
    assert unit == pytest.approx(sign * width / 255 / abs(dataset.get("RescaleSlope", 1)))


def test_without_a_window_the_files_own_range_is_shown_less_its_padding(tmp_path):
    pixels = noise(3, 8, 8, low=100, high=900, dtype=np.int16)
    pixels[1, 2, :4] = -2000
    write_dicom(tmp_path / "data" / "a.dcm", pixels, NumberOfFrames=3, PixelPaddingValue=-2000)
    source = DicomSource(tmp_path / "data", "all")
    inside = pixels[pixels != -2000].astype(float)
    expected = np.clip((pixels - inside.min()) / (inside.max() - inside.min()), 0, 1) * 255
    assert len(source) == 3
    assert np.abs(source.read(np.arange(3))[:, 0] - expected).max() <= 0.5 + 1e-6
    assert source.native(1).grid.padding == (-2000, -2000)


def test_tables_of_modality_and_window(tmp_path):
    pixels = noise(8, 8, high=15)
    curve = [k * k for k in range(16)]
    table = item(LUTDescriptor=[16, 0, 8], LUTData=np.array(curve, "<u2").tobytes())
    for element in ("ModalityLUTSequence", "VOILUTSequence"):
        dataset = write_dicom(tmp_path / element / "a.dcm", pixels, bits=8, **{element: table})
        if element == "ModalityLUTSequence":
            dataset.WindowCenter, dataset.WindowWidth = 128, 256
            dataset.save_as(tmp_path / element / "a.dcm", enforce_file_format=True)
        source = DicomSource(tmp_path / element, "all")
        assert np.abs(source.read(np.array([0]))[0, 0].astype(int) - np.array(curve)[pixels]).max() <= 1
        assert source.native(0).grid.unit == pytest.approx(15 / 255)


@pytest.mark.parametrize("names", [("MR_small.dcm", "MR_small_bigendian.dcm"), ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm")])
def test_byte_order_does_not_change_what_is_shown(tmp_path, names):
    samples = []
    for name in names:
        if (path := get_testdata_file(name, download=False)) is None:
            pytest.skip(f"{name} is in the package pydicom-data")
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / name)
        samples.append(DicomSource(tmp_path / name, "all").read(np.array([0])))
    assert np.array_equal(*samples)


def test_colours(tmp_path):
    rgb = noise(2, 6, 5, 3, high=65535, dtype=np.uint16)
    write_dicom(tmp_path / "data" / "deep.dcm", rgb, stored_as="RGB")
    write_dicom(tmp_path / "data" / "grey.dcm", rgb[0, :, :, 0] >> 8, bits=8, WindowCenter=128, WindowWidth=256)
    write_dicom(tmp_path / "data" / "ybr.dcm", noise(6, 5, 3), stored_as="YBR_FULL")
    source = DicomSource(tmp_path / "data", "all")
    assert source.shape == (3, 6, 5)
    assert source.frames.tolist() == [2, 1, 1]
    samples = source.read(np.arange(4))
    assert np.array_equal(samples[:2], np.rint(rgb / 257).astype(np.uint8).transpose(0, 3, 1, 2))
    assert source.native(0).grid.unit == 257
    assert np.array_equal(samples[2], np.broadcast_to(rgb[0, :, :, 0] >> 8, (3, 6, 5)))
    assert source.native(3).changes == ("YBR_FULL became RGB",)


def test_enhanced_images_window_each_frame(tmp_path):
    pixels = noise(2, 4, 4, high=1000, dtype=np.uint16)
    windows = [item(FrameVOILUTSequence=item(WindowCenter=c, WindowWidth=w))[0] for c, w in ((500, 1001), (50, 101))]
    shared = item(PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=0))
    tags = {"PerFrameFunctionalGroupsSequence": windows, "SharedFunctionalGroupsSequence": shared}
    write_dicom(tmp_path / "data" / "a.dcm", pixels, **tags)
    source = DicomSource(tmp_path / "data", "all")
    assert [source.native(k).grid.unit for k in (0, 1)] == pytest.approx([1000 / 255, 100 / 255])


def test_classes_are_first_folders_at_any_depth(tmp_path):
    for number, name in enumerate(
        ("train/sick/s1/b.dcm", "train/sick/a.dcm", "train/well/s/t/1.2.840.7", "test/well/x")
    ):
        write_dicom(tmp_path / name, noise(4, 4, seed=number))
    (tmp_path / "train" / "well" / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "train" / "well" / "notes.txt").write_text("no image")
    assert holds_dicom(tmp_path)
    assert Opening().splits(str(tmp_path)) == ("train", "test")
    source = Opening().source(str(tmp_path))
    assert source.files == ["sick/a.dcm", "sick/s1/b.dcm", "well/s/t/1.2.840.7"]
    assert (source.labels.tolist(), source.class_names) == ([0, 0, 1], ("sick", "well"))
    assert Opening().source(str(tmp_path), "test").labels.tolist() == [1]
    assert Subset(source, 2).native(1).pixels.shape == (1, 4, 4)


@pytest.mark.parametrize("folders", [("kh4711", "KH-9"), (NAME.replace("^", "_"), "b"), ("", "b")])
def test_patients_are_no_classes_nor_is_anything_where_files_lie_beside_folders(tmp_path, folders):
    for folder in folders:
        write_dicom(tmp_path / folder / "study" / "a.dcm" if folder else tmp_path / "a.dcm", noise(4, 4))
    source = DicomSource(tmp_path, "all")
    assert source.labels is None
    assert source.class_names is None


def damaged(folder):
    """Files that cannot be protected, by what is said of them."""
    good = write_dicom(folder / "good.dcm", noise(8, 8))
    (folder / "cut.dcm").write_bytes((folder / "good.dcm").read_bytes()[:-30])
    (folder / "text.dcm").write_text("no image")
    good.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
    good.PixelData = encapsulate([good.PixelData])
    good.save_as(folder / "video.dcm", enforce_file_format=True)
    shutil.copy(get_testdata_file("rtdose.dcm", download=False), folder / "dose.dcm")
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), folder / "report.dcm")
    write_dicom(folder / "huge.dcm", noise(8, 8), Rows=65535, Columns=65535)
    return {
        "cut": "",
        "text": "",
        "video": "MPEG-4",
        "dose": "32 of 32 bits",
        "report": "no image",
        "huge": "65535x65535",
    }


@pytest.mark.parametrize("name", ["cut", "text", "video", "dose", "report", "huge"])
def test_what_cannot_be_decoded_is_named(tmp_path, name):
    reasons = damaged(tmp_path / "all")
    (tmp_path / "data").mkdir()
    shutil.copy(tmp_path / "all" / f"{name}.dcm", tmp_path / "data" / f"{name}.dcm")
    with pytest.raises(DataError, match=rf"{name}\.dcm cannot be read .*{reasons[name]}.*skip_unreadable=true"):
        DicomSource(tmp_path / "data", "all").read(np.array([0]))


def test_what_cannot_be_decoded_is_left_out_where_that_is_asked_for(tmp_path):
    names = sorted(f"{name}.dcm" for name in damaged(tmp_path))
    source = DicomSource(tmp_path, "all", skip_unreadable=True)
    assert source.files == ["good.dcm"]
    assert [entry.file for entry in source.left_out] == names


def test_sizes_must_agree_or_be_given(tmp_path):
    write_dicom(tmp_path / "a.dcm", noise(4, 4))
    write_dicom(tmp_path / "b.dcm", noise(5, 4))
    with pytest.raises(DataError, match=r"images of different sizes, as 4x4 and 4x5; .*image_size=N"):
        DicomSource(tmp_path, "all")
    assert DicomSource(tmp_path, "all", image_size=8).read(np.arange(2)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_that_are_stored_are_cleared_or_refused(tmp_path, signed):
    """Decoders of RLE clear them; those of JPEG 2000 give what the codestream holds."""
    clean = noise(16, 16, high=2047, dtype=np.int16 if signed else np.uint16)
    full = clean.view(np.uint16) | 0xF000
    for name in ("plain", "rle", "j2k"):
        dataset = write_dicom(tmp_path / name / "x.dcm", clean, bits=12, WindowCenter=1024, WindowWidth=2048)
        dataset.PixelData = full.tobytes()
        if name == "rle":
            dataset.BitsStored, dataset.HighBit = 16, 15
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.BitsStored, dataset.HighBit = 12, 11
        if name == "j2k":
            file = io.BytesIO()
            Image.fromarray(full).save(file, "JPEG2000", no_jp2=True)
            frame = file.getvalue() + bytes(len(file.getvalue()) % 2)
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
            dataset.PixelData = encapsulate([frame])
            dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / name / "x.dcm", enforce_file_format=True)
        source = DicomSource(tmp_path / name, "all")
        if name == "j2k":
            with pytest.raises(DataError, match="more than the 12 bits"):
                source.native(0)
        else:
            assert np.array_equal(source.native(0).pixels[0], clean)


def test_bits_below_those_that_are_stored_are_refused(tmp_path):
    write_dicom(tmp_path / "x.dcm", noise(8, 8, high=4095, dtype=np.uint16), bits=12, HighBit=15)
    with pytest.raises(DataError, match="highest bit is 15; valid is 11"):
        DicomSource(tmp_path, "all")
