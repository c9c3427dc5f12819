"""Mutated files for every parser: each is taken or refused in one line, in bounded memory and time.

Prints a line a parser, and on standard error each input that raised another error, said more than one line, took longer
than the limit, or ended the process; exits with 1 if there are such.
"""

from __future__ import annotations

import argparse
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
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import PARSERS
from fuzz_numbers import numbers_of
from fuzz_sources import Parser

from hpcule.config.errors import HpculeError

MEMORY = 2 << 30
"""Bytes of address space that an input may add to what the process has."""
SECONDS = 10.0
"""Of the processor that an input may take; what waits for something may take as many minutes."""
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

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + self.wrong

    def add(self, other: Counts) -> None:
        """Count the inputs of another parser as well."""
        self.accepted, self.refused = self.accepted + other.accepted, self.refused + other.refused
        self.wrong += other.wrong
        self.slowest, self.mebibytes = max(self.slowest, other.slowest), max(self.mebibytes, other.mebibytes)

    def row(self) -> str:
        """The columns of a table."""
        verdicts = f"{self.inputs} | {self.accepted} | {self.refused} | {self.wrong}"
        return f"{verdicts} | {self.slowest:.2f} | {self.mebibytes}"


def fuzz(name: str, inputs: int | None, seed: int = 0) -> tuple[Counts, list[str]]:
    """Counts, and what went wrong with which input; in child processes, each from where the one before it ended.

    Inputs are so many random ones, or, for None, all those in which one number of the header is another.
    """
    counts, wrong, first, status = Counts(), [], 0, "not yet ended"
    folder = Path(tempfile.mkdtemp(prefix="hpcule-fuzz-"))
    try:
        while status:
            log = folder / "log"
            log.write_text("")
            child = os.fork()
            if not child:
                code = 1
                try:
                    _child(name, first, inputs, seed, folder, log)
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
            if status:
                first = lines[-1]["number"] + 1 if lines else first
                counts.wrong += 1
                wrong.append(f"{name} {first - 1}: {status}")
            if not lines:
                break
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return counts, wrong


def _wait(child: int, log: Path) -> str:
    """Wait for the end of a child; how it ended, if that was not well."""
    begun, before = 0.0, 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""
        if (noted := log.stat().st_mtime) != begun:
            begun, before = noted, _processor_seconds(child)
        if _processor_seconds(child) - before > SECONDS or time.time() - begun > 60 * SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"more than {SECONDS:g} s"
        time.sleep(0.01)


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(name: str, first: int, inputs: int | None, seed: int, folder: Path, log: Path) -> None:
    """Read input after input, and note before and after each."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    place = folder / str(first)
    place.mkdir()
    parser = PARSERS[name]
    path = parser.make(place)
    whole = path.read_bytes()
    numbers = numbers_of(name, parser, whole) if inputs is None else []
    verdict, message = _verdict(parser, place)
    assert verdict == ("accepted" if parser.valid else "refused"), message
    others = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with log.open("a", buffering=1) as notes:
        for number in range(first, len(numbers) if inputs is None else inputs):
            notes.write(json.dumps({"number": number}) + "\n")
            for file, data in others.items():
                file.write_bytes(data)
            drawn = random.Random(f"{seed} {name} {number}")
            path.write_bytes(mutated(whole, drawn, parser.text) if inputs is not None else numbers[number])
            began = time.process_time()
            verdict, message = _verdict(parser, place)
            mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            line = {"number": number, "verdict": verdict, "message": message, "mebibytes": mebibytes}
            notes.write(json.dumps({**line, "seconds": time.process_time() - began}) + "\n")


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
    parser.add_argument("--numbers", action="store_true", help="each number of a header on its own, not --inputs")
    parser.add_argument("--only", nargs="*", help="these parsers")
    options = parser.parse_args()
    total = Counts()
    print("| parser | inputs | accepted | refused | wrong | slowest, s | more memory, MiB |\n" + "| --- " * 7 + "|")
    for name in options.only or PARSERS:
        counts, wrong = fuzz(name, None if options.numbers else options.inputs, options.seed)
        print(f"| {name} | {counts.row()} |", flush=True)
        for line in wrong:
            print(line, file=sys.stderr, flush=True)
        total.add(counts)
    print(f"| all | {total.row()} |")
    return 1 if total.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
