"""Published data sets of image files by name: crafted, verified, exported, and read again as what a victim sees."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from published_sets import WRITERS
from slowly import slow_but

from hpcule.data.opening import Opening
from hpcule.publish.carry import publishing
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

SIZE = 16


@pytest.fixture
def store(tmp_path, monkeypatch, run):
    """A function that writes a set where names are looked for, and crafts a store of it."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(name, *words):
        folder, write = WRITERS[name]
        places = write(tmp_path / ".cache" / "hpcule" / "data" / folder)
        settings = ["--preset", "smoke", "--set", f"image_size={SIZE}", "--set", "method.epsilon=8"]
        code, _, said = run("craft", "classwise", "--data", name, "--out", tmp_path / "store", *settings, *words)
        assert code == 0, said
        return places, said

    return make


@pytest.mark.parametrize("name", slow_but(["oxford-pets"], WRITERS))
def test_a_copy_has_folders_of_splits_and_classes(tmp_path, store, run, name):
    places, said = store(name)
    for words in (
        ("verify", tmp_path / "store", "--data", name),
        ("export", tmp_path / "store", "--data", name, "--out", tmp_path / "copy"),
    ):
        code, _, said = run(*words)
        assert code == 0, said
    files = {f"{split}/{file}.png" for split, names in places.items() for file in names}
    found = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert found == files
    opening = Opening(image_size=SIZE)
    assert opening.splits(str(tmp_path / "copy")) == tuple(places)
    for split in places:
        clean, copied = opening.source(f"{name}:{split}"), opening.source(f"{tmp_path / 'copy'}:{split}")
        assert np.array_equal(clean.labels, copied.labels)
        assert clean.class_names == copied.class_names
        ids = np.arange(len(clean))
        expected = clean.read(ids)
        assert [clean.native(k).pixels.shape for k in ids] == [copied.native(k).pixels.shape for k in ids]
        if split == "train":
            with StoreReader(Vault(tmp_path / "store")) as reader:
                seen = publishing(reader, clean)(ids, expected)
            assert (seen != expected).any((1, 2, 3)).all()
            expected = seen
        assert np.array_equal(copied.read(ids), expected)


def test_what_is_excluded_or_in_no_list_is_said(tmp_path, store, run):
    _, said = store("oxford-pets", "--exclude", "*/Bengal_1*")
    assert "2 excluded: images/Bengal_1.jpg, images/Bengal_10.jpg" in said
    assert "4 of other kinds: .txt 2" in said
    code, _, said = run("export", tmp_path / "store", "--data", "oxford-pets", "--out", tmp_path / "copy")
    assert code == 0, said
    with (tmp_path / "store" / "run" / "export.csv").open(newline="") as file:
        records = {row["file"]: row for row in csv.DictReader(file)}
    excluded = records["images/Bengal_10.jpg"]
    assert (excluded["published"], excluded["protected"]) == ("Bengal/Bengal_10.png", "no")
    data = tmp_path / ".cache" / "hpcule" / "data" / "oxford-iiit-pet" / "images" / "Bengal_10.jpg"
    with Image.open(tmp_path / "copy" / "train" / "Bengal" / "Bengal_10.png") as copied, Image.open(data) as clean:
        assert np.array_equal(np.asarray(copied), np.asarray(clean))
    assert records["annotations/trimaps/Abyssinian_1.png"]["note"] == "of another kind: left out"
    code, _, said = run("revert", tmp_path / "store", "--data", tmp_path / "copy", "--out", tmp_path / "reverted")
    assert code == 0, said


def test_copies_are_not_written_among_the_data(tmp_path, store, run):
    store("flowers-17")
    out = tmp_path / ".cache" / "hpcule" / "data" / "flowers-17" / "copy"
    code, _, said = run("export", tmp_path / "store", "--data", "flowers-17", "--out", out)
    assert code == 2, said
    assert not out.exists()
