"""Which volumes a layout names, and what it refuses."""

import json

import pytest
from volumes import sphere_volume, write_decathlon, write_nnunet, write_volume

from hpcule.config.errors import DataError
from hpcule.data.sources.volumes.layouts import class_names, listed_volumes, volume_layout


def describe(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_other_files_are_ignored_once(tmp_path):
    folder = write_nnunet(tmp_path, 2, tests=1)
    (folder / "notes.txt").write_text("notes")
    layout = volume_layout(folder, (), alone=False)
    assert layout.splits() == ("train", "test")
    assert layout.ignored("train", layout.scan("train")) == ["notes.txt"]
    assert layout.ignored("test", layout.scan("test")) == []


def test_excluded_cases_leave_with_their_masks(tmp_path):
    layout = listed_volumes(write_nnunet(tmp_path, 3), ("imagesTr/P1*",))
    assert layout.scan("train") == ["imagesTr/P0_0000.nii.gz", "imagesTr/P2_0000.nii.gz"]
    assert layout.excluded("train") == ["imagesTr/P1_0000.nii.gz"]
    assert layout.masks("train", layout.scan("train")) == ["labelsTr/P0.nii.gz", "labelsTr/P2.nii.gz"]


def test_cases_of_several_channels_and_of_other_names_are_named(tmp_path):
    folder = write_nnunet(tmp_path, 2)
    second = write_volume(folder / "imagesTr" / "P1_0001.nii.gz", sphere_volume(0, 8)[0])
    with pytest.raises(DataError, match="P1 has several channels, and hpcule reads volumes of one"):
        listed_volumes(folder, ())
    second.rename(second.with_name("P9.nii.gz"))
    with pytest.raises(DataError, match=r"names end in the number of a channel, as in P9_0000\.nii\.gz"):
        listed_volumes(folder, ())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": "../secret.nii.gz"}, "leads out of"),
        ({"image": "imagesTr/absent.nii.gz"}, r"is no file that ends in \.nii or \.nii\.gz; add it"),
        ({"image": ["a_0.nii", "a_1.nii"]}, "volumes of one channel in one file"),
        (7, "valid is"),
    ],
)
def test_entries_that_name_no_volume_inside_are_refused(tmp_path, entry, message):
    folder = describe(write_decathlon(tmp_path / "data", 1), training=[entry])
    write_volume(tmp_path / "secret.nii.gz", sphere_volume(0, 8)[0])
    with pytest.raises(DataError, match=message):
        listed_volumes(folder, ())


def test_a_description_that_is_no_json_is_named(tmp_path):
    (write_decathlon(tmp_path, 1) / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"dataset\.json cannot be read as JSON"):
        listed_volumes(tmp_path, ())


def test_names_of_classes_in_both_orders(tmp_path):
    assert class_names(tmp_path, {"background": 0, "tumour": 1}) == {0: "background", 1: "tumour"}
    assert class_names(tmp_path, {"0": "background", "1": "tumour"}) == {0: "background", 1: "tumour"}
    for odd in ({"whole": [1, 2], "core": [2]}, {"a": 0}, {"a": 0, "b": 300}, ["a"], {"a": 0, "b": 0}):
        with pytest.raises(DataError, match='"labels" names no classes'):
            class_names(tmp_path, odd)
