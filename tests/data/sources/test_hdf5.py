import multiprocessing
import pickle
import zlib

import h5py
import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.hdf5 import Hdf5Source


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.h5"


def refusal(path):
    with pytest.raises(DataError) as caught:
        Opening().source(str(path))
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def write(path, images, labels=None, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **options)
        if labels is not None:
            file["labels"] = labels


def test_data_stay_in_the_file(path, make_images):
    images = make_images(9, 4, 4)
    write(path, images)
    assert Opening().splits(str(path)) == ("all",)
    source = Opening().source(str(path))
    with h5py.File(path, "r+", locking=False) as file:
        file["images"][3] = 77
    assert source.labels is None
    assert (source.read(np.array([3])) == 77).all()


def read_in_child(source, ids, queue):
    queue.put(source.read(ids))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_other_processes_open_their_own_handle(path, make_images, method):
    images = make_images(9, 4, 4)
    write(path, images, chunks=(2, 4, 4))
    source = Hdf5Source(path, "all")
    ids = np.array([8, 0, 1, 5])
    assert np.array_equal(source.read(ids)[:, 0], images[ids])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(source, ids, queue))
    child.start()
    try:
        assert np.array_equal(queue.get(timeout=30)[:, 0], images[ids])
    finally:
        child.join(30)
    assert np.array_equal(source.read(ids)[:, 0], images[ids])


def test_pickling_leaves_the_handle_behind(path, make_images):
    write(path, make_images(9, 4, 4))
    source = Hdf5Source(path, "all")
    source.read(np.arange(2))
    copy = pickle.loads(pickle.dumps(source))
    path.unlink()
    with pytest.raises(DataError, match=r"set\.h5 is not a whole HDF5 file"):
        copy.read(np.arange(2))


def test_no_hdf5_file(path):
    path.write_bytes(b"something else")
    assert "is not a whole HDF5 file" in refusal(path)


def test_truncated_file(path, make_images):
    write(path, make_images(50, 16, 16))
    path.write_bytes(path.read_bytes()[:6000])
    assert "is not a whole HDF5 file" in refusal(path)


def test_flipped_byte_is_found(path, make_images):
    images = make_images(50, 16, 16)
    write(path, images, chunks=(10, 16, 16), fletcher32=True)
    content = bytearray(path.read_bytes())
    at = content.index(images[25].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    source = Opening().source(str(path))
    assert np.array_equal(source.read(np.arange(10))[:, 0], images[:10])
    with pytest.raises(DataError, match=r"set\.h5 is damaged \("):
        source.read(np.array([29]))


def test_chunks_that_were_never_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (50, 16, 16), np.uint8, chunks=(10, 16, 16))[:40] = 1
    assert "images: parts were never written" in refusal(path)


@pytest.mark.parametrize("options", [{}, {"chunks": (1000, 1 << 10, 1 << 10)}])
def test_huge_shape_without_data(path, options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (10**9, 1 << 10, 1 << 10), np.uint8, **options)
        file.create_dataset("labels", (10**9,), np.uint8)
    assert "images: parts were never written" in refusal(path)


def test_a_chunk_that_cannot_hold_what_its_shape_says(path):
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", (1, 50_000, 50_000), np.uint8, chunks=(1, 50_000, 50_000), compression="gzip"
        )
        images.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1000)))
    assert "images: parts were never written" in refusal(path)


@pytest.mark.parametrize("at", ["root", "dataset"])
def test_damaged_structure_is_one_error(path, make_images, at):
    write(path, make_images(8, 4, 4, 3), chunks=(4, 4, 4, 3))
    content = bytearray(path.read_bytes())
    start = content.index(b"TREE") if at == "root" else content.index(b"SNOD")
    content[start : start + 4] = bytes(4)
    path.write_bytes(content)
    assert "is damaged (" in refusal(path)


@pytest.mark.parametrize("name", ["images", "labels"])
@pytest.mark.parametrize(
    "link",
    [
        h5py.SoftLink("/other"),
        h5py.SoftLink("/absent"),
        h5py.ExternalLink("other.h5", "/images"),
        h5py.ExternalLink("absent.h5", "/images"),
    ],
)
def test_links_are_refused(path, make_images, name, link):
    write(path.with_name("other.h5"), make_images(3, 4, 4))
    arrays = {"images": make_images(3, 4, 4), "labels": np.arange(3)}
    with h5py.File(path, "w") as file:
        file["other"] = arrays[name]
        for key, array in arrays.items():
            file[key] = link if key == name else array
    assert f"{name} is a link" in refusal(path)


def test_virtual_dataset_is_refused(path, make_images):
    other = path.with_name("other.h5")
    write(other, make_images(3, 4, 4))
    layout = h5py.VirtualLayout((3, 4, 4), np.uint8)
    layout[...] = h5py.VirtualSource(other, "images", (3, 4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)
    assert "keeps its data in other files" in refusal(path)


def test_external_storage_is_refused(path):
    raw = path.with_name("raw.bin")
    raw.write_bytes(bytes(48))
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (3, 4, 4), np.uint8, external=[(raw, 0, 48)])
    assert "keeps its data in other files" in refusal(path)


def test_other_filters_are_refused(path, make_images):
    write(path, make_images(3, 4, 4), chunks=(1, 4, 4), scaleoffset=0)
    assert "filter scaleoffset; valid are gzip, lzf" in refusal(path)


def test_user_defined_filter_is_refused(path):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 4, 4))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, whose code is not part of HDF5
    with h5py.File(path, "w") as file:
        space, kind = h5py.h5s.create_simple((3, 4, 4)), h5py.h5t.NATIVE_UINT8
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"images", kind, space, properties))
        dataset[...] = 1
    assert "is packed with the filter" in refusal(path)


def test_group_instead_of_dataset(path):
    with h5py.File(path, "w") as file:
        file.create_group("images")
    assert "images is a group" in refusal(path)


def test_dataset_without_shape(path):
    with h5py.File(path, "w") as file:
        file["images"] = h5py.Empty("u1")
    assert "no samples" in refusal(path)


def test_members_of_other_names(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    assert "holds x; valid are images and labels" in refusal(path)


def test_float_images(path):
    images = np.zeros((9, 4, 4))
    images[7, 0, 0] = np.nan
    write(path, images)
    assert "float64, and sample 7 holds NaN" in refusal(path)


def test_channels_must_be_last_or_said_to_be_first(path, make_images):
    write(path, make_images(5, 3, 8, 8))
    assert "8 channels; valid is [n, H, W] or [n, H, W, C]" in refusal(path)
    with h5py.File(path, "r+") as file:
        file["images"].attrs["layout"] = np.bytes_("NCHW")
    assert Opening().source(str(path)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4, int), "labels that do not match: 4 labels for 3 images"),
        (np.full((3, 2), 2), "label 0 of sample 0 is 2; valid are 0, 1"),
        (np.array([0, np.nan, 0]), "sample 1 is NaN"),
        (np.array(["a", "b", "c"], dtype="S1"), "number the classes"),
        (["a", "b", "c"], "number the classes"),
        (3, "valid is [n] or [n, 1]"),
    ],
)
def test_bad_labels(path, make_images, labels, message):
    write(path, make_images(3, 4, 4), labels)
    assert message in refusal(path)
