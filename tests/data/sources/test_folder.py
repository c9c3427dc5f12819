import io
import itertools
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.folder import FolderSource


@pytest.fixture
def put(tmp_path, make_images):
    """Write one image below tmp_path, in the mode and format of its name's ending."""

    def write(relative, size=(6, 4), mode="L", **options):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = make_images(size[1], size[0], 3, seed=len(relative))
        image = Image.fromarray(pixels).convert(mode)
        image.save(path, **options)
        return image

    return write


def opened(folder, **options):
    return Opening(**options).source(str(folder))


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        opened(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ids_follow_class_and_file_names(tmp_path, put):
    # "a b" sorts behind "a" as a class, though "a b/1.png" would stand before "a/1.png" as a path
    names = ["a/10.png", "a/9.png", "a/B.PNG", "a/a.png", "a b/1.png", "b/0.png"]
    images = {name: put(name) for name in reversed(names)}
    source = opened(tmp_path)
    assert [source.file_name(i) for i in range(len(source))] == names
    assert source.class_names == ("a", "a b", "b")
    assert source.labels.tolist() == [0, 0, 0, 0, 1, 2]
    for sample, name in zip(source.read(np.arange(6)), names, strict=True):
        assert np.array_equal(sample[0], np.asarray(images[name]))


def test_flat_folder_has_no_labels(tmp_path, put):
    put("b.png")
    put("a.bmp")
    source = opened(tmp_path)
    assert (source.labels, source.class_names, source.split) == (None, None, "all")
    assert [source.file_name(i) for i in range(2)] == ["a.bmp", "b.png"]


def test_classes_are_numbered_over_all_splits(tmp_path, put):
    for name in ("train/cat/1.png", "train/dog/1.png", "test/dog/1.png", "val/bird/2.png"):
        put(name)
    assert Opening().splits(str(tmp_path)) == ("train", "val", "test")
    assert opened(tmp_path).labels.tolist() == [1, 2]
    test = Opening().test(str(tmp_path), None)
    assert (test.labels.tolist(), test.class_names) == ([2], ("bird", "cat", "dog"))
    assert test.file_name(0) == "dog/1.png"


def test_a_class_may_be_called_train(tmp_path, put):
    put("train/1.png")
    put("ship/1.png")
    assert opened(tmp_path).class_names == ("ship", "train")


@pytest.mark.parametrize(
    ("ending", "mode"),
    [*itertools.product(["png", "bmp", "tif", "tiff"], ["L", "RGB"]), ("webp", "RGB")],
)
def test_lossless_formats(tmp_path, put, ending, mode):
    options = {"lossless": True} if ending == "webp" else {}
    image = put(f"x/1.{ending}", mode=mode, **options)
    pixels = np.asarray(image)
    expected = pixels[None] if mode == "L" else np.stack([pixels[..., c] for c in range(3)])
    assert np.array_equal(opened(tmp_path).read(np.array([0]))[0], expected)


@pytest.mark.parametrize(("ending", "mode"), [("jpg", "L"), ("JPEG", "RGB"), ("jpg", "CMYK")])
def test_jpeg(tmp_path, put, ending, mode):
    put(f"x/1.{ending}", mode=mode)
    with Image.open(tmp_path / "x" / f"1.{ending}") as image:
        pixels = np.asarray(image.convert("L" if mode == "L" else "RGB"))
    expected = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    assert np.array_equal(opened(tmp_path).read(np.array([0]))[0], expected)


@pytest.mark.parametrize("mode", ["P", "RGBA", "1", "LA"])
def test_other_modes_become_colour(tmp_path, put, mode):
    image = put("x/1.png", mode=mode)
    put("x/2.png", mode="L")
    source = opened(tmp_path)
    assert source.shape == (3, 4, 6)
    assert np.array_equal(source.read(np.array([0]))[0], np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_transparent_colours_of_a_palette(tmp_path, put):
    image = put("x/1.png", mode="P", transparency=bytes([0, 128, 255]))
    colours = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(opened(tmp_path).read(np.array([0]))[0], colours)


def test_images_are_turned_as_exif_says(tmp_path, put):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn to the right
    image = put("x/1.png", exif=exif)
    source = opened(tmp_path)
    assert source.shape[1:] == (6, 4)
    turned = np.rot90(np.asarray(image), -1)
    assert np.array_equal(source.read(np.array([0]))[0, 0], turned)
    assert source.native(0) is None
    resized = opened(tmp_path, image_size=8)
    assert resized.native(0).changes == ("turned as EXIF says",)
    assert np.array_equal(resized.native(0).pixels[0], turned)


@pytest.mark.parametrize(
    ("mode", "changes", "transparent"),
    [
        ("L", ("grey became RGB",), False),
        ("RGB", (), False),
        ("RGBA", (), True),
        ("LA", ("grey became RGB",), True),
        ("P", ("P became RGB",), False),
    ],
)
def test_a_file_at_its_own_size(tmp_path, put, mode, changes, transparent):
    put("x/0.png", mode="RGB")
    image = put("x/1.png", mode=mode)
    native = opened(tmp_path, image_size=5).native(1)
    assert np.array_equal(native.pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    assert native.changes == changes
    if transparent:
        assert np.array_equal(native.alpha, np.asarray(image.convert("RGBA"))[..., 3])
    else:
        assert native.alpha is None


def test_transparency_of_a_palette_is_kept_at_its_own_size(tmp_path, put):
    image = put("x/1.png", mode="P", transparency=bytes([0, 128, 255]))
    with Image.open(tmp_path / "x" / "1.png") as saved:
        expected = np.asarray(saved.convert("RGBA"))[..., 3]
    native = opened(tmp_path, image_size=5).native(0)
    assert np.array_equal(native.alpha, expected)
    assert native.pixels.shape == (3, image.height, image.width)


def test_hidden_and_other_files_are_ignored(tmp_path, put):
    put("x/1.png")
    for name in (".DS_Store", "x/.1.png", "x/notes.txt", "README.md", ".hidden/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    assert len(opened(tmp_path)) == 1


def test_deep_grey_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "1.png")
    assert "1.png has more than 8 bits a channel; convert it" in refusal(tmp_path)
    assert "1.png has more than 8 bits" in refusal(tmp_path, skip_unreadable=True)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_refused(tmp_path, dtype):
    Image.fromarray(np.zeros((4, 4), dtype)).save(tmp_path / "1.tif")
    assert "1.tif has more than 8 bits" in refusal(tmp_path)


def test_deep_colour_is_refused(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0))  # 2x2 pixels, 16 bits, RGB
    data = chunk(b"IDAT", zlib.compress((b"\0" + bytes(12)) * 2))
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    assert "1.png has more than 8 bits" in refusal(tmp_path)


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def test_corrupt_pixels_are_named_when_read(tmp_path, put):
    put("x/1.png", (64, 64))
    put("x/2.png", (64, 64))
    damage(tmp_path / "x/2.png")
    source = opened(tmp_path)
    assert len(source.read(np.array([0]))) == 1
    with pytest.raises(DataError, match=r"x/2\.png cannot be decoded .*--set skip_unreadable=true"):
        source.read(np.array([0, 1]))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"some text", b"\xff\xd8\xff\xe0 broken"])
def test_what_is_no_image_is_named_when_opened(tmp_path, put, content):
    put("x/1.png")
    (tmp_path / "x/2.png").write_bytes(content)
    assert "x/2.png cannot be decoded (" in refusal(tmp_path)


def test_unreadable_files_are_left_out_on_request(tmp_path, put):
    kept = put("x/1.png", (64, 64))
    put("x/2.png", (64, 64))
    damage(tmp_path / "x/2.png")
    (tmp_path / "x/3.png").write_text("no image")
    (tmp_path / "x/4.png").symlink_to(tmp_path / "x/absent.png")
    last = put("y/5.png", (64, 64))
    source = opened(tmp_path, skip_unreadable=True)
    assert [entry.file for entry in source.left_out] == ["x/2.png", "x/3.png", "x/4.png"]
    assert [source.file_name(i) for i in range(len(source))] == ["x/1.png", "y/5.png"]
    assert source.labels.tolist() == [0, 1]
    assert np.array_equal(source.read(np.arange(2))[:, 0], np.stack([kept, last]))


def test_nothing_is_readable(tmp_path):
    (tmp_path / "1.png").write_text("no image")
    assert "none of the 1 images can be decoded" in refusal(tmp_path, skip_unreadable=True)


def test_a_pipe_is_not_waited_for(tmp_path, put):
    put("1.png")
    os.mkfifo(tmp_path / "2.png")
    assert "2.png cannot be decoded (no regular file)" in refusal(tmp_path)


def test_different_sizes_name_two_files(tmp_path, put):
    put("x/1.png", (6, 4))
    put("x/2.png", (5, 7))
    message = refusal(tmp_path)
    assert "x/1.png is 6x4, x/2.png is 5x7" in message
    assert "--set image_size=N" in message


def test_different_sizes_are_resized_when_decoded(tmp_path, put):
    images = [put("x/1.png", (60, 40)), put("x/2.png", (5, 7))]
    source = opened(tmp_path, image_size=16)
    assert isinstance(source, FolderSource)
    assert source.shape == (1, 16, 16)
    expected = [np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)) for image in images]
    assert np.array_equal(source.read(np.arange(2))[:, 0], expected)


def test_a_file_that_changed_is_named(tmp_path, put):
    put("x/1.png")
    source = opened(tmp_path)
    put("x/1.png", (7, 7))
    with pytest.raises(DataError, match=r"x/1\.png changed while it was in use"):
        source.read(np.array([0]))


def test_empty_folder(tmp_path):
    assert "holds no images; valid are files that end in .png, .jpg" in refusal(tmp_path)


def test_class_without_images(tmp_path, put):
    put("cat/1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/notes.txt").touch()
    assert "dog: class without images" in refusal(tmp_path)


def test_images_beside_classes(tmp_path, put):
    put("cat/1.png")
    put("stray.png")
    assert "holds images (stray.png) next to folders (cat)" in refusal(tmp_path)


def test_images_beside_splits(tmp_path, put):
    put("train/cat/1.png")
    put("test/cat/1.png")
    put("stray.png")
    assert "holds images next to the folders train, test" in refusal(tmp_path)


def test_folders_inside_a_class(tmp_path, put):
    put("cat/1.png")
    put("cat/more/2.png")
    assert "cat/more is a folder inside the class cat" in refusal(tmp_path)


@pytest.mark.parametrize("link", ["x/2.png", "y"])
def test_links_out_of_the_folder_are_refused(tmp_path, put, link):
    put("data/x/1.png")
    put("elsewhere/2.png")
    target = tmp_path / "elsewhere"
    (tmp_path / "data" / link).symlink_to(target if link == "y" else target / "2.png")
    assert f"{link} is a link that leads out of" in refusal(tmp_path / "data")


def test_links_inside_the_folder_are_followed(tmp_path, put):
    image = put("data/x/1.png")
    (tmp_path / "data/x/2.png").symlink_to("1.png")
    (tmp_path / "link").symlink_to("data")
    assert np.array_equal(opened(tmp_path / "link").read(np.array([1]))[0, 0], np.asarray(image))


@pytest.mark.parametrize("link", ["y", "x/1.png"])
def test_links_to_themselves_are_refused(tmp_path, link):
    (tmp_path / "x").mkdir()
    (tmp_path / link).symlink_to(tmp_path / link)
    assert f"{link} is a link that leads nowhere" in refusal(tmp_path)


@pytest.mark.parametrize("size", [(30_000, 30_000), (12_000, 12_000), (8_193, 8_192)])
def test_few_bytes_that_unpack_to_many_pixels_are_refused(tmp_path, put, size):
    kept = put("2.png")
    bomb = bytearray((tmp_path / "2.png").read_bytes())
    bomb[16:24] = struct.pack(">II", *size)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "1.png").write_bytes(bomb)
    assert "1.png has more than the 67,108,864 pixels that are read; make it smaller" in refusal(tmp_path)
    source = opened(tmp_path, skip_unreadable=True)
    assert [entry.file for entry in source.left_out] == ["1.png"]
    assert np.array_equal(source.read(np.array([0]))[0, 0], np.asarray(kept))


def test_names_that_cannot_be_printed_stay_on_one_line(tmp_path, put):
    put("a\nb/1.png")
    put("a\nb/\x1b[31m\udcff.png")
    put("c/1.png")
    assert opened(tmp_path).read(np.arange(3)).shape == (3, 1, 4, 6)
    (tmp_path / "c/1.png").write_text("no image")
    (tmp_path / "a\nb/\x1b[31m\udcff.png").write_text("no image")
    assert r"/a\nb/\x1b[31m\udcff.png cannot be decoded" in refusal(tmp_path)


SEVERAL = {".tif": {}, ".png": {}, ".webp": {"lossless": True}}


@pytest.mark.parametrize("ending", SEVERAL)
def test_several_images_in_one_file_are_refused_or_left_out(tmp_path, ending):
    pages = [Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)) for number in range(3)]
    pages[0].save(tmp_path / f"one{ending}", **SEVERAL[ending])
    pages[0].save(tmp_path / f"three{ending}", save_all=True, append_images=pages[1:], **SEVERAL[ending])
    assert f"three{ending} has 3 pages or frames, of which only the first would be read; save" in refusal(tmp_path)
    source = opened(tmp_path, skip_unreadable=True)
    assert [source.file_name(sample) for sample in range(len(source))] == [f"one{ending}"]
    assert [(entry.file, entry.reason[:7]) for entry in source.left_out] == [(f"three{ending}", "3 pages")]


def test_a_camera_s_thumbnail_is_no_second_image(tmp_path):
    """A JPEG file may hold several (CIPA DC-007): thumbnails, or views of their own."""
    pages = [Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)) for number in range(2)]
    file = io.BytesIO()
    pages[0].save(file, format="MPO", save_all=True, append_images=pages[1:])
    views = file.getvalue()
    (tmp_path / "a.jpg").write_bytes(views)
    assert "a.jpg has 2 pages or frames" in refusal(tmp_path)
    entries = views.index(struct.pack("<HHI", 0xB002, 7, 32)) + 8
    second = views.index(b"MPF") + 4 + struct.unpack_from("<I", views, entries)[0] + 16
    (tmp_path / "a.jpg").write_bytes(views[:second] + struct.pack("<I", 0x010001) + views[second + 4 :])
    assert len(opened(tmp_path)) == 1
