import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.annotations import (
    UNKNOWN,
    VOID,
    ArrayMasks,
    LabelMatrix,
    MaskNumbers,
    label_matrix,
    read_label_table,
    write_label_table,
)
from hpcule.data.opening import Opening


@pytest.fixture
def table(tmp_path):
    """Write a table, and give its path."""

    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    return write


def test_labels_are_one_zero_or_unknown(table):
    path = table("file,a,b\nx.png,1,0\ny.png,,-1\nz.png,nan,1.0\n")
    found = read_label_table(path).of(["z.png", "x.png", "y.png"], "all")
    assert found.names == ("a", "b")
    assert found.values.tolist() == [[UNKNOWN, 1], [1, 0], [UNKNOWN, UNKNOWN]]


def test_a_table_may_have_splits_and_names_files_below_images(table):
    path = table("split,file,a\ntrain,x.png,1\ntest,x.png,0\n")
    found = read_label_table(path)
    assert found.of(["images/x.png"], "test").values.tolist() == [[0]]
    assert found.of(["x.png"], "train").values.tolist() == [[1]]


def test_what_is_written_is_read(table):
    values = np.array([[0, UNKNOWN], [1, 1]], np.int8)
    text = write_label_table({"train": (["a, b.png", 'c".png'], LabelMatrix(values, ("one", "two, three")))})
    found = read_label_table(table(text.decode()))
    assert found.names == ("one", "two, three")
    assert np.array_equal(found.of(["a, b.png", 'c".png'], "train").values, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "valid is a column `file`"),
        ("file\nx.png\n", "one for each label"),
        ("name,a\nx.png,1\n", "valid is a column `file`"),
        ("file,a,a\nx.png,1,1\n", "two columns have one name"),
        ("file,a\nx.png\n", "line 2 has 1 values"),
        ("file,a\nx.png,1\nx.png,1\n", "line 3 names x.png once more"),
        ("file,a,age\nx.png,1,0\ny.png,0,forty\n", "line 3: age is 'forty'; valid are 0, 1"),
        ("file,a\nx.png,2\n", "a is '2'"),
        ('file,a\n"x.png,1\n', "no CSV"),
        ("file,a\ny.png,1\n", "no row for x.png: add one"),
    ],
)
def test_bad_tables(table, text, message):
    with pytest.raises(DataError) as caught:
        read_label_table(table(text)).of(["x.png"], "all")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((3, 2, 2)), "shape [3, 2, 2] for 3 samples"),
        (np.zeros((2, 2)), "shape [2, 2] for 3 samples"),
        (np.full((3, 2), 2), "label 0 of sample 0 is 2"),
        (np.array([["0"] * 2] * 3), "the labels are <U1"),
    ],
)
def test_bad_matrices(raw, message):
    with pytest.raises(DataError) as caught:
        label_matrix(raw, 3, "file")
    assert message in str(caught.value)


def test_nan_is_unknown():
    assert label_matrix(np.array([[0.0, np.nan]]), 1, "file").values.tolist() == [[0, UNKNOWN]]


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        ([0, 1, 2], ("background", "1", "2"), [0, 1, 2]),
        ([0, 7, VOID], ("background", "7"), [0, 1, VOID]),
        ([0, VOID], ("background", "255"), [0, 1]),
    ],
)
def test_values_that_nobody_has_named(values, names, numbers):
    found = MaskNumbers.found(values, "masks", "")
    assert found.names == names
    assert found.of(np.array(values, np.uint8), "masks").tolist() == numbers


@pytest.mark.parametrize("values", [[0], [1, 2], [VOID], [], [3, VOID]])
def test_masks_without_a_background_or_without_more(values):
    with pytest.raises(DataError, match="valid is 0 for the background"):
        MaskNumbers.found(values, "masks", "")


def test_named_values_and_void():
    found = MaskNumbers.named({4: "tree", 1: "sky", 9: "Void"})
    assert found.names == ("sky", "tree")
    assert found.of(np.array([[4, 1], [9, VOID]], np.uint8), "masks").tolist() == [[1, 0], [VOID, VOID]]
    with pytest.raises(DataError, match="the value 2 is no class; valid are 1, 4, 9, 255"):
        found.of(np.array([2], np.uint8), "masks")


def arrays(make_images, count, size, masks, labels):
    """The arrays of a file with a split of training images."""
    return {
        "train_images": make_images(count, size, size),
        "train_masks": np.asarray(masks, np.uint8),
        "train_labels": labels,
    }


def written(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            for name, array in content.items():
                file[name] = array
    return str(path)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_arrays_hold_several_labels_and_masks(tmp_path, make_images, ending):
    masks = np.random.default_rng(0).integers(0, 3, (5, 8, 8))
    labels = np.array([[0, 1], [1, -1], [0, 0], [1, 1], [-1, 0]])
    data = written(tmp_path / f"set.{ending}", arrays(make_images, 5, 8, masks, labels))
    source = Opening().source(data)
    assert source.labels is None
    assert np.array_equal(source.label_matrix.values, labels)
    assert np.array_equal(source.masks.read(np.array([3, 0])), masks[[3, 0]])
    assert source.masks.names == ("background", "1", "2")
    small = Opening(image_size=4).source(data)
    assert np.array_equal(small.masks.read(np.array([1]))[0], masks[1, 1::2, 1::2])
    few = Opening(subset=2).source(data)
    assert np.array_equal(few.masks.read(np.array([1]))[0], masks[2])
    assert np.array_equal(few.label_matrix.values, labels[[0, 2]])


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_class_numbers_and_several_labels_side_by_side(tmp_path, make_images, ending):
    content = {"images": make_images(3, 4, 4), "labels": np.arange(3), "label_matrix": np.eye(3, dtype=np.int8)}
    source = Opening().source(written(tmp_path / f"set.{ending}", content))
    assert source.labels.tolist() == [0, 1, 2]
    assert source.label_matrix.values.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("masks", [np.zeros((5, 8, 7), np.uint8), np.zeros((4, 8, 8), np.uint8), np.zeros((5, 8, 8))])
@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_masks_that_do_not_fit_their_images(tmp_path, make_images, ending, masks):
    data = written(tmp_path / f"set.{ending}", {"images": make_images(5, 8, 8), "masks": masks})
    with pytest.raises(DataError, match=r"masks .*; valid is uint8 \[5, 8, 8\]"):
        Opening().source(data)


def test_array_masks_give_one_mask():
    masks = ArrayMasks(np.array([[[0, 1]], [[2, VOID]]], np.uint8))
    assert masks.native(1).tolist() == [[2, VOID]]
