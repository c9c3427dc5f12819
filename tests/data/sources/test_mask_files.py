import numpy as np
import pytest
from PIL import Image

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening


@pytest.fixture
def put(tmp_path):
    """Write an image, or a mask with these values, below tmp_path."""

    def write(name, values, mode="L"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values, np.uint8)).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def pairs(put):
    """Two splits of images of 6 x 4 pixels with masks, whose values are returned by split and name."""
    draws = np.random.default_rng(0)
    found = {}
    for split, names in (("train", "bac"), ("test", "d")):
        for name in names:
            put(f"{split}/images/{name}.bmp", draws.integers(0, 256, (4, 6)))
            found[split, name] = mask = draws.integers(0, 3, (4, 6)).astype(np.uint8)
            put(f"{split}/masks/{name}.png", mask)
    return found


def opened(folder, split="train", **options):
    return Opening(**options).source(str(folder), split)


def _all_masks(source):
    return source.masks.read(np.arange(len(source)))


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        _all_masks(opened(folder, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_image_has_its_mask(tmp_path, pairs):
    source = opened(tmp_path)
    assert [source.file_name(k) for k in range(3)] == [f"images/{name}.bmp" for name in "abc"]
    assert source.labels is None
    assert source.masks.names == ("background", "1", "2")
    for sample, name in enumerate("abc"):
        assert np.array_equal(source.masks.read(np.array([sample]))[0], pairs["train", name])
        assert np.array_equal(source.masks.native(sample), pairs["train", name])
    assert [entry.reason for entry in source.left_out] == ["a mask"] * 3
    assert source.ignored == []
    assert np.array_equal(opened(tmp_path, "test").masks.native(0), pairs["test", "d"])


def test_masks_follow_the_size_of_samples(tmp_path, pairs):
    source = opened(tmp_path, image_size=4)
    assert source.masks.read(np.array([1])).shape == (1, 4, 4)
    assert set(np.unique(source.masks.read(np.array([1])))) <= {0, 1, 2}
    assert source.masks.native(1).shape == (4, 6)


def test_tiles_have_the_tiles_of_masks(tmp_path, pairs):
    source = opened(tmp_path, tile_size=4)
    left, right = source.masks.read(np.array([0, 1]))
    assert np.array_equal(left, pairs["train", "a"][:, :4])
    assert np.array_equal(right, pairs["train", "a"][:, [4, 5, 5, 4]])


def test_classes_are_folders_in_both(tmp_path, put):
    for name in ("cat/1", "dog/1"):
        put(f"images/{name}.png", np.zeros((4, 4)))
        put(f"masks/{name}.png", np.eye(4) * len(name))
    source = Opening().source(str(tmp_path))
    assert (source.labels.tolist(), source.class_names) == ([0, 1], ("cat", "dog"))
    assert source.masks.names == ("background", "5")


def test_names_and_void_of_a_list(tmp_path, pairs, put):
    (tmp_path / "classes.txt").write_text("0 sky\n1 tall tree\n2 void\n")
    source = opened(tmp_path)
    assert source.masks.names == ("sky", "tall tree")
    expected = np.where(pairs["train", "a"] == 2, 255, pairs["train", "a"])
    assert np.array_equal(source.masks.native(0), expected)


def test_values_of_a_palette_and_of_two_levels(tmp_path, put):
    put("images/a.png", np.zeros((4, 4)))
    put("images/b.png", np.zeros((4, 4)))
    mask = Image.fromarray(np.eye(4, dtype=np.uint8))
    mask.putpalette([0, 0, 0, 255, 0, 0])
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks" / "a.png")
    put("masks/b.png", 255 * np.eye(4), mode="1")
    source = Opening().source(str(tmp_path))
    assert np.array_equal(source.masks.read(np.arange(2)), np.stack([np.eye(4)] * 2))


def test_a_table_of_labels_belongs_to_its_folder(tmp_path, pairs):
    (tmp_path / "labels.csv").write_text("split,file,wet\ntrain,a.bmp,1\ntrain,b.bmp,0\ntrain,c.bmp,\ntest,d.bmp,1\n")
    source = opened(tmp_path)
    assert source.label_matrix.names == ("wet",)
    assert source.label_matrix.values.tolist() == [[1], [0], [-1]]
    (tmp_path / "test" / "labels.csv").write_text("file,dry\nimages/d.bmp,0\n")
    assert opened(tmp_path, "test").label_matrix.names == ("dry",)
    assert opened(tmp_path, "test").ignored == []


def test_a_file_without_a_row(tmp_path, pairs):
    (tmp_path / "labels.csv").write_text("split,file,wet\ntrain,a.bmp,1\n")
    assert "has no row for train, images/b.bmp: add one" in refusal(tmp_path)


def test_an_image_without_a_mask(tmp_path, pairs):
    (tmp_path / "train" / "masks" / "b.png").unlink()
    assert "b.bmp has no mask" in refusal(tmp_path)
    assert len(opened(tmp_path, exclude=("images/b.bmp",))) == 2


def test_two_masks_of_one_image(tmp_path, pairs, put):
    put("train/masks/b.bmp", np.zeros((4, 6)))
    assert "are masks of one image" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("values", "mode", "message"),
    [
        (np.zeros((6, 4)), "L", "b.png has 4x6 pixels, and its image images/b.bmp has 6x4"),
        (np.zeros((4, 6)), "RGB", "is of mode RGB; a mask holds class numbers"),
    ],
)
def test_masks_of_another_kind(tmp_path, pairs, put, values, mode, message):
    put("train/masks/b.png", values, mode)
    assert message in refusal(tmp_path)


def test_masks_without_a_background(tmp_path, pairs, put):
    for (split, name), mask in pairs.items():
        put(f"{split}/masks/{name}.png", mask + 1)
    assert "masks with the values 1, 2, 3; valid is 0 for the background" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "0 a\n", "0 a\n0 b\n", "0 a\n1 a\n", "zero a\n1 b\n", "0\n1 b\n", "0 a\n300 b\n"])
def test_bad_lists(tmp_path, pairs, text):
    (tmp_path / "classes.txt").write_text(text)
    assert "no list of classes" in refusal(tmp_path)


def test_a_value_that_the_list_does_not_have(tmp_path, pairs):
    (tmp_path / "classes.txt").write_text("0 a\n1 b\n")
    assert "the value 2 is no class; valid are 0, 1, 255" in refusal(tmp_path)


def test_camvid(real_data):
    source = Opening().source(str(real_data("camvid160")))
    assert (len(source), source.shape, len(source.masks.names)) == (367, (3, 120, 160), 11)
    assert source.masks.names == source.label_matrix.names
    masks = source.masks.read(np.arange(40))
    shares = np.stack([(masks == k).mean((1, 2)) for k in range(11)], 1)
    # A label holds where its class covers half a percent of the image or more.
    assert np.array_equal(shares >= 0.005, source.label_matrix.values[:40] == 1)
