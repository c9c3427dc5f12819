"""Protect the sample files of pydicom and pydicom-data, and ask other programs about them: dcmtk and dciodvfy."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pydicom

from hpcule.cli.main import main as hpcule
from hpcule.data.sources.dicom import DicomSource, is_dicom

UID = re.compile(r"<[0-9.]+>")


def main() -> None:
    """For each policy: files, frames, those that dcm2pnm shows, and errors of dciodvfy, before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", nargs="+", default=["keep", "basic-deidentify", "minimal"])
    options = parser.parse_args()
    if missing := [name for name in ("dcm2pnm", "dciodvfy") if shutil.which(name) is None]:
        print(f"not run: {' and '.join(missing)} are not installed (Debian's dcmtk and dicom3tools)")
        return
    with tempfile.TemporaryDirectory() as scratch:
        data, store = Path(scratch, "data"), Path(scratch, "store")
        found = collect(data)
        settings = ["--set", "image_size=32", "--set", "skip_unreadable=true"]
        craft = ["craft", "pil", "--preset", "smoke", "--data", str(data), "--out", str(store), *settings]
        assert hpcule(craft) == 0
        source = DicomSource(data, "all", image_size=32, skip_unreadable=True)
        before = {file: (is_shown(data / file), errors(data / file)) for file in source.files}
        print(f"{found} files, {len(source.files)} images that can be read, of {len(source)} frames")
        print(f"before: dcm2pnm {sum(s for s, _ in before.values())}, {tally([e for _, e in before.values()])}")
        for policy in options.policies:
            copy = Path(scratch, policy)
            assert hpcule(["export", str(store), "--data", str(data), "--out", str(copy), "--dicom-tags", policy]) == 0
            names = source.files
            if policy != "keep":
                names = [f"{file.partition('/')[0]}/{number:06d}.dcm" for number, file in enumerate(names)]
            after = [(is_shown(copy / name), errors(copy / name)) for name in names]
            fresh = [new - before[file][1] for file, (_, new) in zip(source.files, after, strict=True)]
            print(f"{policy}: dcm2pnm {sum(s for s, _ in after)}, {tally([e for _, e in after])}, new {tally(fresh)}")
            for file, lines in zip(source.files, fresh, strict=True):
                for line in sorted(lines)[:3]:
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


def tally(found: list[set[str]]) -> str:
    """How many errors in how many files."""
    return f"{sum(map(len, found))} errors in {sum(map(bool, found))} files"


if __name__ == "__main__":
    main()
