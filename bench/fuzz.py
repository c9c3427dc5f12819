"""Mutated files for every parser: each is taken or refused in one line, in bounded memory and time.

Prints a line a parser; exits with 1 if any input raised another error, said more than one line, took longer than the
limit, or ended the process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image

from hpcule.config.errors import HpculeError
from hpcule.config.tree import build, load_yaml
from hpcule.craft.methods import configure
from hpcule.data.open import open_source
from hpcule.jobs.site import load_site
from hpcule.store.checkpoint import Part, commit, latest, save_part
from hpcule.store.files import sha256_file
from hpcule.store.lock import StoreLock
from hpcule.store.manifest import Manifest, SourceFacts, plan_shards, write_manifest
from hpcule.store.read import StoreReader
from hpcule.store.verify import verify
from hpcule.store.write import begin, finish, finished_shards, prepare_shard, put
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder

MEMORY = 2 << 30
"""Bytes of address space that an input may add to what the process has."""
SECONDS = 10.0
"""That an input may take."""
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
SPECIAL = [bytes(8), b"\xff" * 8, struct.pack("<Q", 1 << 62), struct.pack("<Q", 1 << 33), b"\x7f" + b"\xff" * 7]
TOKENS = [
    "NaN",
    "-Infinity",
    "1e999",
    "-1",
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "9" * 400,
    "[" * 3000,
    "\x00",
    "\n- a: b",
    "&a [*a]",
]


@dataclass(frozen=True)
class Parser:
    """What writes a valid input into a folder and returns the file to be changed, and what reads the folder whole."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    text: bool = False


def read_source(folder: Path) -> None:
    """All samples and labels of the data in a folder, or of the file that is alone in it."""
    files = list(folder.iterdir())
    alone = len(files) == 1 and files[0].suffix in (".npz", ".h5")
    source = open_source(str(files[0] if alone else folder))
    samples = source.read(np.arange(len(source)))
    assert samples.shape == (len(source), *source.shape), samples.shape
    assert samples.dtype == source.dtype, samples.dtype
    assert source.labels is None or (source.labels.min() >= 0 and source.labels.max() < source.class_count)


def make_npz(compressed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save = np.savez_compressed if compressed else np.savez
        save(folder / "data.npz", images=IMAGES, labels=LABELS)
        return folder / "data.npz"

    return make


def make_hdf5(**settings: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with h5py.File(folder / "data.h5", "w") as file:
            file.create_dataset("images", data=IMAGES, **settings).attrs["layout"] = "NHWC"
            file["labels"] = LABELS
        return folder / "data.h5"

    return make


def make_idx(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        images = b"\0\0\x08\x03" + struct.pack(">3I", 12, 8, 8) + IMAGES[..., 0].tobytes()
        path = folder / f"train-images-idx3-ubyte{ending}"
        path.write_bytes(gzip.compress(images, mtime=0) if ending else images)
        return path

    return make


def make_images(ending: str, **settings: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number in range(3):
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(IMAGES[number]).save(folder / f"{number}{ending}", exif=exif, **settings)
        return folder / f"1{ending}"

    return make


def make_wav(folder: Path) -> Path:
    for number in range(3):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(IMAGES[number].tobytes())
    return folder / "1.wav"


def make_store(file: str, *, finished: bool = True) -> Callable[[Path], Path]:
    """A store of which one file is changed."""

    def make(folder: Path) -> Path:
        store = folder / "store"
        manifest = planned()
        begin(store, manifest)
        for index, entry in enumerate(manifest.shards):
            delta = np.full((entry.count, *manifest.sample_shape), 3, np.int8)
            put(store, manifest, prepare_shard(manifest, index, LABELS[: entry.count], delta=delta))
        if finished:
            finish(store, manifest)
        return store / file

    return make


def planned() -> Manifest:
    return Manifest(
        hpcule="0", method="pil", config={"skip_unreadable": False}, seed=1, source=SourceFacts("a", "npz", "all", "0"),
        epsilon=8.0, norm="linf", unit="sample", groups=0, n=12, sample_shape=(3, 8, 8), levels=255,
        applied_at="native", working_size=None, reduced=False, compression="gzip",
        shards=plan_shards(12, [(0, 6), (6, 6)]), shared=None, complete=False,
    )  # fmt: skip


def read_store(folder: Path) -> None:
    """Through the manifest, every shard and every delta."""
    problems = verify(folder / "store")
    assert all("\n" not in str(problem) for problem in problems), problems
    with StoreReader(folder / "store") as reader:
        reader.delta(np.arange(reader.manifest.n))
    if problems:
        raise HpculeError(str(problems[0]))


def read_signed(folder: Path) -> None:
    """As somebody would who signs what was changed."""
    store = folder / "store"
    signed = tuple(
        replace(entry, bytes=(store / entry.file).stat().st_size, sha256=sha256_file(store / entry.file))
        for entry in planned().shards
    )
    index = sha256_file(store / "index.h5")
    write_manifest(store, replace(planned(), shards=signed, index_sha256=index, complete=True))
    read_store(folder)


def read_notes(folder: Path) -> None:
    done = finished_shards(folder / "store", planned())
    if len(done) < 2:
        raise HpculeError("begun anew")
    finish(folder / "store", planned())


def make_checkpoint(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        state = {"weights": torch.arange(20.0), "step": 3, "names": ["a", "b"]}
        commit(folder, 1, "key", {"shared": save_part(folder, 1, "shared", state)})
        return folder / "run" / "checkpoint-00000001" / file

    return make


def read_checkpoint(folder: Path) -> None:
    """With its COMMIT as it is."""
    found = latest(folder, "key")
    if found is None:
        raise HpculeError("no checkpoint")
    for name in found.names:
        found.load(name)


def read_signed_checkpoint(folder: Path) -> None:
    path = folder / "run" / "checkpoint-00000001" / "shared.pt"
    commit(folder, 1, "key", {"shared": Part(path.stat().st_size, sha256_file(path))})
    read_checkpoint(folder)


def make_lock(folder: Path) -> Path:
    with StoreLock(folder) as lock:
        lock.exclusive_then_shared()
    return folder / "run" / "lock"


def read_lock(folder: Path) -> None:
    with StoreLock(folder, patience=0) as held:
        held._acquire(2)
        with StoreLock(folder, patience=0) as other:
            other.exclusive_then_shared()


def make_text(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "file.yaml").write_text(text)
        return folder / "file.yaml"

    return make


def make_study(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        study = StudyFolder(folder / "study")
        study.begin(build(StudyConfig, {"name": "a", "data": "digits", "method": "pil"}), 100)
        (study.path / "running" / "item.json").write_text(
            '{"stage": "a", "done": 1, "total": 2, "started": 1.5, "time": 2.5, "host": "b"}'
        )
        study.finish("other", {"loss_last": 0.5})
        (study.path / "failed" / "third.json").write_text('{"error": "a", "host": "b", "job": ""}')
        return study.path / file

    return make


def read_study(folder: Path) -> None:
    study = StudyFolder(folder / "study")
    study.config()
    study.samples()
    for key in ("item", "other", "third"):
        study.status(key)
    study.best(["other", "item"])


STUDY = (
    "name: a\ndata: digits\nmethod: uc\nseeds: [0, 1]\nfactors: {craft.method.batch: [32, 64]}\nvictim: {epochs: 3}\n"
)
CRAFT = "preset: smoke\nseed: 3\ndeterministic: true\nstore: {shards: 2}\nmethod: {name: pil, epsilon: 8, epochs: 1}\n"
SITE = "partition: a\nnodes: 2\nminutes: 60\nsetup: [module load b]\nsbatch: {constraint: gpu}\n"
PARSERS: dict[str, Parser] = {
    "npz": Parser(make_npz(False), read_source),
    "npz, compressed": Parser(make_npz(True), read_source),
    "HDF5": Parser(make_hdf5(), read_source),
    "HDF5, chunked": Parser(make_hdf5(chunks=(5, 8, 8, 3), compression="gzip", fletcher32=True), read_source),
    "IDX": Parser(make_idx(""), read_source),
    "IDX, gzip": Parser(make_idx(".gz"), read_source),
    "PNG": Parser(make_images(".png"), read_source),
    "JPEG": Parser(make_images(".jpg"), read_source),
    "TIFF": Parser(make_images(".tif", compression="tiff_lzw"), read_source),
    "WebP": Parser(make_images(".webp"), read_source),
    "BMP": Parser(make_images(".bmp"), read_source),
    "WAV": Parser(make_wav, read_source),
    "manifest": Parser(make_store("manifest.json"), read_store, text=True),
    "shard": Parser(make_store("shards/00001-of-00002.h5"), read_store),
    "shard, signed": Parser(make_store("shards/00001-of-00002.h5"), read_signed),
    "index": Parser(make_store("index.h5"), read_store),
    "index, signed": Parser(make_store("index.h5"), read_signed),
    "note of a shard": Parser(make_store("run/shard-00001.json", finished=False), read_notes, text=True),
    "checkpoint": Parser(make_checkpoint("shared.pt"), read_checkpoint),
    "checkpoint, signed": Parser(make_checkpoint("shared.pt"), read_signed_checkpoint),
    "COMMIT": Parser(make_checkpoint("COMMIT"), read_checkpoint, text=True),
    "lock": Parser(make_lock, read_lock),
    "settings": Parser(
        make_text(CRAFT),
        lambda folder: configure("pil", "digits", preset=None, file=load_yaml(folder / "file.yaml"), overrides=[]),
        text=True,
    ),
    "study": Parser(make_text(STUDY), lambda folder: build(StudyConfig, load_yaml(folder / "file.yaml")), text=True),
    "site": Parser(make_text(SITE), lambda folder: load_site(str(folder / "file.yaml")), text=True),
    "study.yaml": Parser(make_study("study.yaml"), read_study, text=True),
    "facts.json": Parser(make_study("facts.json"), read_study, text=True),
    "progress of an item": Parser(make_study("running/item.json"), read_study, text=True),
    "result of an item": Parser(make_study("done/other.json"), read_study, text=True),
    "failure of an item": Parser(make_study("failed/third.json"), read_study, text=True),
}


def mutated(data: bytes, draw: random.Random, text: bool) -> bytes:
    """One to three changes: bits, sizes, pieces cut out, doubled or zeroed, an early end; in text also odd values."""
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(len(result)) if result else 0
        length = min(draw.choice((1, 2, 4, 8, 64)), len(result) - at)
        kind = draw.choice(("bits", "special", "cut", "double", "zeros", "end", *(("token",) * 4 if text else ())))
        if kind == "bits" and result:
            result[at] ^= 1 << draw.randrange(8)
        elif kind == "special":
            value = draw.choice(SPECIAL)[: draw.choice((2, 4, 8))]
            result[at : at + len(value)] = value
        elif kind == "cut":
            del result[at : at + length]
        elif kind == "double":
            result[at:at] = result[at : at + length]
        elif kind == "zeros":
            result[at : at + length] = bytes(length)
        elif kind == "end":
            del result[at:]
        elif kind == "token":
            _replace_value(result, draw)
    return bytes(result)


def _replace_value(text: bytearray, draw: random.Random) -> None:
    """Another value behind one of the colons."""
    colons = [n for n, byte in enumerate(text) if byte == ord(":")]
    if colons:
        start = draw.choice(colons) + 1
        end = next((n for n in range(start, len(text)) if text[n] in b",}]\n"), len(text))
        text[start:end] = f" {draw.choice(TOKENS)}".encode()


@dataclass
class Counts:
    """What became of a parser's inputs."""

    accepted: int = 0
    refused: int = 0
    wrong: int = 0
    slowest: float = 0.0
    mebibytes: int = 0


def fuzz(name: str, inputs: int, seed: int = 0) -> tuple[Counts, list[str]]:
    """Counts, and what went wrong with which input; in child processes, each from where the one before it ended."""
    counts, wrong, first = Counts(), [], 0
    folder = Path(tempfile.mkdtemp(prefix="hpcule-fuzz-"))
    try:
        while first < inputs:
            log = folder / "log"
            log.write_text("")
            child = os.fork()
            if not child:
                code = 1
                try:
                    _child(name, range(first, inputs), seed, folder, log)
                    code = 0
                finally:
                    os._exit(code)
            status = _wait(child, log)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            for line in lines:
                if "verdict" in line:
                    setattr(counts, line["verdict"], getattr(counts, line["verdict"]) + 1)
                    counts.slowest = max(counts.slowest, line["seconds"])
                    counts.mebibytes = max(counts.mebibytes, line["mebibytes"])
                    wrong += [f"{name} {line['number']}: {line['message']}"] if line["verdict"] == "wrong" else []
            first = lines[-1]["number"] + 1 if lines else inputs
            if status:
                counts.wrong += 1
                wrong.append(f"{name} {first - 1}: {status}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return counts, wrong


def _wait(child: int, log: Path) -> str:
    """Wait for the end of a child; how it ended, if that was not well."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""
        if time.time() - log.stat().st_mtime > SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"more than {SECONDS:g} s"
        time.sleep(0.01)


def _child(name: str, numbers: range, seed: int, folder: Path, log: Path) -> None:
    """Read input after input, and note before and after each."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    place = folder / str(numbers.start)
    place.mkdir()
    parser = PARSERS[name]
    path = parser.make(place)
    whole = path.read_bytes()
    verdict, message = _verdict(parser, place)
    assert verdict != "wrong", message
    others = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with log.open("a", buffering=1) as notes:
        for number in numbers:
            notes.write(json.dumps({"number": number}) + "\n")
            for file, data in others.items():
                file.write_bytes(data)
            path.write_bytes(mutated(whole, random.Random(f"{seed} {name} {number}"), parser.text))
            began = time.monotonic()
            verdict, message = _verdict(parser, place)
            mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            line = {"number": number, "verdict": verdict, "message": message, "mebibytes": mebibytes}
            notes.write(json.dumps({**line, "seconds": time.monotonic() - began}) + "\n")


def _verdict(parser: Parser, folder: Path) -> tuple[str, str]:
    try:
        parser.read(folder)
    except HpculeError as error:
        text = str(error)
        return ("refused", "") if text.isprintable() and len(text) < 2000 else ("wrong", repr(text)[:300])
    except BaseException as error:
        frame = sys.exc_info()[2]
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
        return "wrong", f"{type(error).__name__}: {error} in {where}"[:300]
    return "accepted", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100, help="for each parser (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="these parsers")
    options = parser.parse_args()
    failed: list[str] = []
    print("| parser | inputs | accepted | refused | wrong | slowest, s | more memory, MiB |\n" + "| --- " * 7 + "|")
    for name in options.only or PARSERS:
        counts, wrong = fuzz(name, options.inputs, options.seed)
        values = asdict(counts)
        print(
            f"| {name} | {options.inputs} | {values['accepted']} | {values['refused']} | {values['wrong']} | "
            f"{counts.slowest:.2f} | {counts.mebibytes} |",
            flush=True,
        )
        failed += wrong
    for line in failed:
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
