"""Protect the sample files of pydicom and pydicom-data, and ask others about them: dcmtk, dciodvfy, and the tables of
attributes in highdicom."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pydicom

from hpcule.cli.main import main as hpcule
from hpcule.data.sources.dicom import DicomSource, is_dicom

UID = re.compile(r"<[0-9.]+>")


class Judged(NamedTuple):
    """What others say of a file: whether dcm2pnm shows it, kinds of errors, and attributes that it lacks."""

    shown: bool
    errors: set[str]
    lacking: set[str]


def main() -> None:
    """For each policy: files, frames, those that dcm2pnm shows, errors and attributes missing, before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", nargs="+", default=["keep", "basic-deidentify", "minimal"])
    options = parser.parse_args()
    if missing := [name for name in ("dcm2pnm", "dciodvfy") if shutil.which(name) is None]:
        print(f"not run: {' and '.join(missing)} are not installed (Debian's dcmtk and dicom3tools)")
        return
    if importlib.util.find_spec("highdicom") is None:
        print("attributes that the standard requires are not looked for: pip install highdicom")
    with tempfile.TemporaryDirectory() as scratch:
        data, store = Path(scratch, "data"), Path(scratch, "store")
        found = collect(data)
        settings = ["--set", "image_size=32", "--set", "skip_unreadable=true"]
        craft = ["craft", "pil", "--preset", "smoke", "--data", str(data), "--out", str(store), *settings]
        assert hpcule(craft) == 0
        source = DicomSource(data, "all", image_size=32, skip_unreadable=True)
        before = [judge(data / file) for file in source.files]
        print(f"{found} files, {len(source.files)} images that can be read, of {len(source)} frames")
        print(f"before: dcm2pnm {sum(one.shown for one in before)}, {faults(before)}")
        for policy in options.policies:
            copy = Path(scratch, policy)
            assert hpcule(["export", str(store), "--data", str(data), "--out", str(copy), "--dicom-tags", policy]) == 0
            names = source.files
            if policy != "keep":
                names = [f"{file.partition('/')[0]}/{number:06d}.dcm" for number, file in enumerate(names)]
            after = [judge(copy / name) for name in names]
            pairs = list(zip(before, after, strict=True))
            fresh = [Judged(True, new.errors - old.errors, new.lacking - old.lacking) for old, new in pairs]
            print(f"{policy}: dcm2pnm {sum(one.shown for one in after)}, {faults(after)}")
            print(f"    new: {faults(fresh)}")
            for file, one in zip(source.files, fresh, strict=True):
                for line in [*sorted(one.errors)[:3], *(f"lacks {name}" for name in sorted(one.lacking)[:3])]:
                    print(f"    {file}: {line}")


def collect(folder: Path) -> int:
    """Copy the sample files into folders of two classes; how many there are."""
    paths = [path for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*") if path.is_file()]
    extra = importlib.util.find_spec("data_store")
    if extra and extra.origin:
        paths += (Path(extra.origin).parent / "data").iterdir()
    files = sorted(path for path in paths if is_dicom(path))
    for number, path in enumerate(files):
        place = folder / f"class{number % 2}" / f"{number:03d}-{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return len(files)


def is_shown(path: Path) -> bool:
    """Whether dcmtk's viewer shows a file."""
    return subprocess.run(["dcm2pnm", path, "/dev/null"], capture_output=True).returncode == 0


def errors(path: Path) -> set[str]:
    """Kinds of errors that dciodvfy finds, without the UIDs that it quotes."""
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    return {UID.sub("<UID>", line) for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")}


def judge(path: Path) -> Judged:
    """A file, seen by others."""
    return Judged(is_shown(path), errors(path), lacking(path))


def lacking(path: Path) -> set[str]:
    """Attributes of type 1 or 2 that the mandatory modules of its SOP class require and a file does not have.

    Below sequences, those of the items that there are. Conditions cannot be evaluated, so types 1C and 2C and the
    modules that depend on one are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return {
            " > ".join([*sequences, keyword])
            for sequences, keyword, filled in required(str(dataset.get("SOPClassUID", "")))
            for item in items(dataset, sequences)
            if keyword not in item or (filled and item[keyword].is_empty)
        }


@cache
def required(sop_class: str) -> list[tuple[tuple[str, ...], str, bool]]:
    """Of a SOP class: the sequences around an attribute, its keyword, and whether it needs a value."""
    if importlib.util.find_spec("highdicom") is None:
        return []
    classes, modules, attributes = map(table, ("sop_class_iod_map", "iod_module_map", "module_attribute_map"))
    return [
        (tuple(one["path"]), one["keyword"], one["type"] == "1")
        for module in modules.get(classes.get(sop_class), [])
        if module["usage"] == "M"
        for one in attributes[module["key"]]
        if one["type"] in ("1", "2")
    ]


@cache
def table(name: str) -> Any:
    """A table of the standard (PS3.3), as highdicom carries it."""
    return json.loads(resources.files("highdicom").joinpath("_standard", f"{name}.json").read_text())


def items(dataset: pydicom.Dataset, sequences: tuple[str, ...]) -> Iterator[pydicom.Dataset]:
    """The data set itself, or all items of the innermost of nested sequences, as far as there are any."""
    if not sequences:
        yield dataset
        return
    for item in dataset.get(sequences[0]) or ():
        yield from items(item, sequences[1:])


def faults(found: list[Judged]) -> str:
    """How many errors and missing attributes there are, and in how many files."""
    kinds = {"errors": [one.errors for one in found], "missing attributes": [one.lacking for one in found]}
    return ", ".join(f"{sum(map(len, kind))} {noun} in {sum(map(bool, kind))} files" for noun, kind in kinds.items())


if __name__ == "__main__":
    main()
