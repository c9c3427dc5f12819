"""Masks and several labels go into copies as they are."""

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcule.cli.main import main
from hpcule.config.errors import StoreError, UsageError
from hpcule.data.annotations import UNKNOWN, ArrayMasks, LabelMatrix
from hpcule.data.opening import Opening
from hpcule.publish import readback
from hpcule.publish.export import export
from hpcule.store.vault import Vault


@pytest.fixture
def collection(tmp_path):
    """Two splits of images with masks that a palette colours, and a table of labels."""
    folder, draws = tmp_path / "collection", np.random.default_rng(0)
    rows = ["split,file,wet,cold"]
    for split, count in (("train", 8), ("test", 2)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draws.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(
                folder / split / "images" / f"{number}.jpg"
            )
            mask = Image.fromarray(draws.integers(0, 3, (6, 8)).astype(np.uint8))
            mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
            mask.save(folder / split / "masks" / f"{number}.png")
            rows.append(f"{split},{number}.jpg,{number % 2},{'' if number % 3 else 1}")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("0 floor\n1 wall\n2 void\n")
    return folder


@pytest.mark.parametrize("size", [{}, {"image_size": 8}])
def test_a_folder_comes_back_with_its_masks_and_its_table(collection, make_store, tmp_path, size):
    source, test = (Opening(**size).source(str(collection), split) for split in ("train", "test"))
    settings = {"applied_at": "working", "working_size": 8} if size else {}
    store, *_ = make_store(source, **settings)
    out = tmp_path / "copy"
    summary = export(Vault(store), source, out, other_splits={"test": test})
    assert (summary.protected, summary.copied) == (8, {"test": 2})
    assert (out / "classes.txt").read_text() == (collection / "classes.txt").read_text()
    for split, clean in (("train", source), ("test", test)):
        found = Opening(**size).source(str(out), split)
        ids = np.arange(len(clean))
        assert [found.file_name(k) for k in ids] == [f"images/{k}.png" for k in ids]
        assert found.label_matrix.names == ("wet", "cold")
        assert np.array_equal(found.label_matrix.values, clean.label_matrix.values)
        assert np.array_equal(found.masks.read(ids), clean.masks.read(ids))
        assert (found.read(ids) != clean.read(ids)).any() == (split == "train")
    with Image.open(out / "train" / "masks" / "3.png") as before, Image.open(collection / "train/masks/3.png") as after:
        assert (before.mode, before.getpalette()) == (after.mode, after.getpalette())
    notes = {record.note for record in summary.records if record.excluded}
    assert notes == {"a mask: copied without a perturbation"}


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_arrays_hold_masks_and_labels(make_source, make_store, tmp_path, ending):
    source = make_source(classes=0)
    draws = np.random.default_rng(1)
    masks = draws.integers(0, 3, (50, 6, 5)).astype(np.uint8)
    source.masks = ArrayMasks(masks)
    values = draws.integers(UNKNOWN, 2, (50, 4)).astype(np.int8)
    source.label_matrix = LabelMatrix(values, ("a", "b", "c", "d"))
    store, *_ = make_store(source)
    out = tmp_path / f"copy{ending}"
    export(Vault(store), source, out)
    found = Opening().source(str(out))
    assert np.array_equal(found.masks.read(np.arange(50)), masks)
    assert np.array_equal(found.label_matrix.values, values)


def test_a_folder_keeps_no_masks_of_arrays(make_source, make_store, tmp_path):
    source = make_source()
    source.masks = ArrayMasks(np.eye(6, 5, dtype=np.uint8)[None].repeat(50, 0))
    store, *_ = make_store(source)
    with pytest.raises(UsageError, match="keeps no masks"):
        export(Vault(store), source, tmp_path / "copy", format="folder")


@pytest.mark.parametrize("what", ["label_matrix", "masks"])
def test_a_wrong_array_is_found_before_it_is_published(make_source, make_store, tmp_path, monkeypatch, what):
    source = make_source(classes=0)
    source.masks = ArrayMasks(np.eye(6, 5, dtype=np.uint8)[None].repeat(50, 0))
    source.label_matrix = LabelMatrix(np.eye(50, 4, dtype=np.int8), ("a", "b", "c", "d"))
    store, *_ = make_store(source)
    out, check = tmp_path / "copy.h5", readback.ReadBack.check

    def damaged(self, made, sources, records):
        with h5py.File(made, "r+") as file:
            file[what][3] = 1 - file[what][3]
        check(self, made, sources, records)

    monkeypatch.setattr(readback.ReadBack, "check", damaged)
    with pytest.raises(StoreError, match=r"(labels|masks) differ"):
        export(Vault(store), source, out)
    assert not out.exists()


def test_a_wrong_table_is_found_before_it_is_published(collection, make_store, tmp_path, monkeypatch):
    source = Opening().source(str(collection), "train")
    store, *_ = make_store(source)
    check = readback.ReadBack.check

    def damaged(self, made, sources, records):
        path = made / "labels.csv"
        path.write_text(path.read_text().replace("train,images/3.png,1,", "train,images/3.png,0,"))
        check(self, made, sources, records)

    monkeypatch.setattr(readback.ReadBack, "check", damaged)
    with pytest.raises(StoreError, match="labels differ"):
        export(Vault(store), source, tmp_path / "copy")


@pytest.mark.parametrize(
    "craft",
    [
        ["classwise", "method.task=segmentation"],
        ["classwise", "method.task=labels+segmentation", "method.flat=0.5"],
        ["lsp", "method.task=labels", "method.flat=0.25", "method.cell=4"],
    ],
)
def test_what_is_taken_off_a_copy_has_its_masks_and_its_table(collection, tmp_path, capsys, craft):
    method, *settings = craft
    for arguments in (
        ["craft", method, *(text for setting in ["store.shards=2", *settings] for text in ("--set", setting))],
        ["verify"],
        ["export"],
        ["inspect"],
        ["revert"],
    ):
        assert main([*arguments[:2], *COMMANDS[arguments[0]](collection, tmp_path), *arguments[2:]]) == 0
    printed = capsys.readouterr().out
    assert "10 masks were copied as they are." in printed
    assert "2 labels each, masks of 2 classes" in printed
    assert "Identical to the originals: yes." in printed


COMMANDS = {
    "craft": lambda data, place: ["--data", str(data), "--out", str(place / "made")],
    "verify": lambda data, place: [str(place / "made"), "--data", str(data)],
    "export": lambda data, place: [str(place / "made"), "--data", str(data), "--out", str(place / "copy")],
    "inspect": lambda data, place: [str(place / "copy")],
    "revert": lambda data, place: [str(place / "made"), "--data", str(place / "copy"), "--out", str(place / "back")],
}
