"""Data sets of image files in the layouts in which they are published, by name and by path."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from published_sets import WRITERS, write_flowers_17, write_flowers_102, write_image, write_pets
from scipy.io import savemat

from hpcule.config.errors import DataError
from hpcule.data.find import data_path
from hpcule.data.left_out import left_out_notice
from hpcule.data.opening import Opening
from hpcule.data.sources.published import published_layout

SIZED = Opening(image_size=16)


@pytest.mark.parametrize("name", WRITERS)
def test_splits_labels_and_pixels_by_name_and_by_path(tmp_path, name):
    folder, write = WRITERS[name]
    places = write(tmp_path / folder)
    for data in (name, str(tmp_path / folder)):
        assert SIZED.splits(data, root=tmp_path) == tuple(places)
        for split, files in places.items():
            source = SIZED.source(f"{data}:{split}", root=tmp_path)
            assert (source.name, source.kind, source.split, source.shape) == (name, "folder", split, (3, 16, 16))
            assert [source.file_name(k) for k in range(len(source))] == [f"{file}.jpg" for file in files]
            classes = [source.class_names[label] for label in source.labels]
            assert classes == [file.partition("/")[0] for file in files]
            assert list(source.class_names) == sorted({file.split("/")[0] for one in places.values() for file in one})
            for k, file in enumerate(files):
                stem = file.partition("/")[2]
                with Image.open(next((tmp_path / folder).glob(f"*/{stem}.jpg"))) as image:
                    assert np.array_equal(source.native(k).pixels, np.asarray(image).transpose(2, 0, 1))


def test_the_breeds_are_numbered_as_published(tmp_path):
    """The list below has the cats and dogs of the published one in the order of their class numbers."""
    breeds = """
        Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer
        British_Shorthair chihuahua Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired
        great_pyrenees havanese japanese_chin keeshond leonberger Maine_Coon miniature_pinscher newfoundland Persian
        pomeranian pug Ragdoll Russian_Blue saint_bernard samoyed scottish_terrier shiba_inu Siamese Sphynx
        staffordshire_bull_terrier wheaten_terrier yorkshire_terrier"""
    rows = [f"{breed}_1 {k} 1 1" for k, breed in enumerate(breeds.split(), 1)]
    for folder in ("annotations", "images"):
        (tmp_path / folder).mkdir()
    for file in ("trainval.txt", "test.txt"):
        lines = reversed(rows) if file == "trainval.txt" else []
        (tmp_path / "annotations" / file).write_text("\n".join(lines))
    layout = published_layout(tmp_path, ())
    labels, _ = layout.classes([f"images/{row.split()[0]}.jpg" for row in rows], "train")
    assert labels.tolist() == list(range(37))


def test_torchvision_reads_the_same_pets(tmp_path):
    from hpcule.world.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    from torchvision.datasets import OxfordIIITPet

    write_pets(tmp_path / "oxford-iiit-pet")
    for split, theirs in (("train", "trainval"), ("test", "test")):
        source, pets = SIZED.source(f"oxford-pets:{split}", root=tmp_path), OxfordIIITPet(tmp_path, theirs)
        assert [name.replace("_", " ") for name in source.class_names] == pets.classes
        found = {source.file_name(k).partition("/")[2]: source.labels[k] for k in range(len(source))}
        numbers = sorted(set(pets._labels))
        assert found == {path.name: numbers.index(k) for path, k in zip(pets._images, pets._labels, strict=True)}


def test_files_in_no_list_are_reported_once(tmp_path):
    write_pets(tmp_path / "oxford-iiit-pet")
    train, test = (SIZED.source(f"oxford-pets:{split}", root=tmp_path) for split in ("train", "test"))
    lists = ["annotations/test.txt", "annotations/trainval.txt"]
    assert train.ignored == [*lists, "annotations/trimaps/Abyssinian_1.png", "images/Bengal_99.jpg"]
    assert test.ignored == []
    assert "4 of 13 files left out: 4 of other kinds: .txt 2, .jpg 1" in left_out_notice(train, test)


@pytest.mark.parametrize("pattern", ["*/Abyssinian_1*", "images/Abyssinian_1*"])
def test_excluded_images_go_to_the_folder_of_their_class(tmp_path, pattern):
    write_pets(tmp_path)
    opening = Opening(image_size=16, exclude=(pattern,))
    source = opening.source(str(tmp_path))
    places = [(entry.file, entry.place) for entry in source.left_out]
    assert places == [(f"images/{name}", f"Abyssinian/{name}") for name in ("Abyssinian_1.jpg", "Abyssinian_10.jpg")]
    assert len(source) == 7
    assert opening.source(str(tmp_path), "test").left_out == []


@pytest.mark.parametrize(
    ("name", "absent", "said"),
    [
        ("oxford-pets", "annotations/test.txt", "annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets/"),
        ("oxford-pets", "images", "images.tar.gz"),
        ("oxford-pets", "images/Bengal_30.jpg", "images.tar.gz"),
        ("flowers-17", "datasplits.mat", "17flowers.tgz of https://www.robots.ox.ac.uk/~vgg/data/flowers/17/"),
        ("flowers-102", "imagelabels.mat", "add setid.mat and imagelabels.mat"),
        ("flowers-102", "jpg/image_00012.jpg", "102flowers.tgz of https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"),
    ],
)
def test_what_is_missing_is_named_and_where_it_is_fetched(tmp_path, name, absent, said):
    folder, write = WRITERS[name]
    write(tmp_path / folder)
    (tmp_path / folder / absent).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as raised:
        SIZED.source(name, "test", root=tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / folder / absent} is missing; {name} ")
    assert said in str(raised.value)
    assert str(tmp_path / folder) in str(raised.value).partition(";")[2]


def test_absent_set(tmp_path):
    with pytest.raises(DataError, match=r"flowers-17/datasplits\.mat is missing; .* unpack 17flowers\.tgz"):
        SIZED.splits("flowers-17", root=tmp_path)


def test_a_part_of_a_set_is_recognised_at_a_path(tmp_path):
    write_flowers_102(tmp_path)
    (tmp_path / "setid.mat").unlink()
    with pytest.raises(DataError, match=r"setid\.mat is missing; flowers-102 "):
        SIZED.source(str(tmp_path))


def test_other_folders_are_none_of_the_sets(tmp_path):
    write_image(tmp_path / "images" / "1.jpg", 1)
    write_image(tmp_path / "jpg" / "1.jpg", 2)
    assert published_layout(tmp_path, ()) is None
    assert SIZED.source(str(tmp_path)).class_names == ("images", "jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Abyssinian_1 1 1 1\nAbyssinian_30 1 1 1\n", r"Abyssinian_30\.jpg is in more than one split"),
        ("Abyssinian_1 1 1 1\n../../secret 1 1 1\n", r"names the image '\.\./\.\./secret'; valid is BREED_NUMBER"),
        ("Abyssinian_1 1 1 1\n\xe4_1 1 1 1\n", r"trainval\.txt cannot be read as a list of images"),
        ("Abyssinian_1 1 1 1\n" * 60_000, "more than 1,048,576 bytes"),
    ],
)
def test_damaged_list_of_pets(tmp_path, content, said):
    write_pets(tmp_path)
    (tmp_path / "annotations" / "trainval.txt").write_text(content)
    with pytest.raises(DataError, match=said):
        SIZED.source(str(tmp_path))


def test_comments_and_empty_lines_of_a_list(tmp_path):
    write_pets(tmp_path)
    path = tmp_path / "annotations" / "trainval.txt"
    path.write_text("#Image CLASS-ID SPECIES BREED ID\n\n" + path.read_text())
    assert len(SIZED.source(str(tmp_path))) == 9


def test_number_without_a_label(tmp_path):
    write_flowers_102(tmp_path)
    savemat(tmp_path / "setid.mat", {"trnid": [1], "valid": [2], "tstid": [13]})
    with pytest.raises(DataError, match=r"setid\.mat names image 13, of 12 in imagelabels\.mat"):
        SIZED.source(str(tmp_path))


@pytest.mark.parametrize("link", ["jpg", "jpg/image_0001.jpg"])
def test_links_that_lead_out_are_refused(tmp_path, link):
    write_flowers_17(tmp_path / "set")
    (tmp_path / "set" / link).rename(tmp_path / "elsewhere")
    (tmp_path / "set" / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link that leads out of"):
        SIZED.source(str(tmp_path / "set"))


def test_unreadable_images_are_left_out(tmp_path):
    write_flowers_17(tmp_path)
    (tmp_path / "jpg" / "image_0080.jpg").write_bytes(b"no image")
    source = Opening(image_size=16, skip_unreadable=True).source(str(tmp_path))
    assert [entry.file for entry in source.left_out] == ["jpg/image_0080.jpg"]
    assert [source.class_names[label] for label in source.labels] == ["01", "02", "17", "17"]


def test_copies_keep_out_of_the_folder_of_a_named_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_path("flowers-17:test") == tmp_path / ".cache" / "hpcule" / "data" / "flowers-17"
    assert data_path("digits") is None
