"""What `hpcule probe strip` finds of every method: a row of JSON each, and a table in Markdown.

    python bench/strip.py --data DATA --out FOLDER --set subset=3000
    python bench/strip.py --data DATA --out OTHER --set subset=3000 --probe victim.steps=1 --originals 1 4 16
    python bench/strip.py --out FOLDER

Crafts have seed 0, a preset below and what `--set` says; the probe has seed 0 and what `--probe` says. A method that
has a row in FOLDER is not tried again; without --data, the table shows the rows that are there. The second command
hardly trains: it measures in seconds how much of the perturbation comes off, and leaves the accuracies empty.
`hpcule/craft/stripped.json` holds the rows of docs/stripping.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcule.cli.main import main as hpcule
from hpcule.craft.stripped import StrippedRow
from hpcule.craft.table import METHODS
from hpcule.report.methods import stripping_table
from hpcule.store.files import write_atomically

QUICK = ("cuda", "classwise", "lsp", "ops", "pil", "tue", "ar", "em by class", "pue", "em", "em-ops")
"""In the order of their cost, with the preset `small`, which is `paper` where there is nothing to reduce."""
SLOW = (*(name for name in METHODS if name not in QUICK), "cp by class")
"""With the preset `smoke`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="DATA with labels and a test split (default: only print the table)")
    parser.add_argument(
        "--out", type=Path, default=Path("hpcule-runs/bench-strip"), help="of stores, networks and rows"
    )
    parser.add_argument("--methods", nargs="+", default=[*QUICK, *SLOW], metavar="METHOD")
    parser.add_argument(
        "--originals", type=int, nargs="+", default=[1], metavar="N", help="of every class (default: 1)"
    )
    parser.add_argument("--set", action="append", default=[], dest="craft", metavar="NAME=VALUE", help="of crafts")
    parser.add_argument("--probe", action="append", default=[], metavar="NAME=VALUE", help="settings of the probe")
    options = parser.parse_args()
    path = options.out / "stripped.json"
    rows: list[StrippedRow] = json.loads(path.read_text()) if path.exists() else []
    for method in options.methods if options.data else []:
        known = {row["originals"] for row in rows if row["method"] == method}
        for originals in (number for number in options.originals if number not in known):
            if row := measure(method, originals, options):
                rows.append(row)
                write_atomically(path, ("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n").encode())
    print(stripping_table(sorted(rows, key=lambda row: ([*QUICK, *SLOW].index(row["method"]), row["originals"]))))


def measure(method: str, originals: int, options: argparse.Namespace) -> StrippedRow | None:
    """A row, or None after a line with the reason why the method cannot be measured on these data.

    The networks of all methods are in one folder, so that the clean one is trained once.
    """
    store = options.out / "stores" / method.replace(" ", "-")
    common = ["--data", options.data, "--json", "--set", "seed=0"]
    name, _, unit = method.partition(" by ")
    preset = "small" if method in QUICK else "smoke"
    craft = sets([*options.craft, *([f"method.unit={unit}"] if unit else [])])
    probe = sets([f"originals={originals}", *options.probe])
    crafted = call("craft", name, *common, "--out", str(store), "--preset", preset, "--resume", *craft)
    found = crafted and call("probe", "strip", str(store), *common, "--out", str(options.out / "probe"), *probe)
    return found and row_of(method, preset, json.loads((store / "manifest.json").read_text()), found)


def row_of(method: str, preset: str, manifest: Mapping[str, Any], found: Mapping[str, Any]) -> StrippedRow:
    """The row of a store's results."""
    left = {"protected": found["protected"], **found["stripped"]}
    last = {name: round(one["last"], 4) for name, one in {"clean": found["clean"], **left}.items()}
    return {
        "method": method,
        "unit": manifest["unit"],
        "preset": preset,
        "data": found["data"]["name"],
        "samples": found["data"]["train"],
        "network": found["settings"]["victim"]["network"],
        "originals": found["settings"]["originals"],
        "known": found["known"],
        "levels": {name: round(one["residual"], 3) for name, one in left.items()},
        "accuracy": last if found["status"] == "done" else None,
    }


def sets(overrides: Sequence[str]) -> Iterator[str]:
    """The arguments that change settings."""
    for override in overrides:
        yield from ("--set", override)


def call(*arguments: str) -> Any:
    """What a command with --json prints, in this process, which has loaded torch; None and a line where it fails."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        failed = hpcule(arguments)
    if failed:
        print(f"{' '.join(arguments[:2])}: {said.getvalue().strip().splitlines()[-1]}", flush=True)
        return None
    return json.loads(printed.getvalue().strip().splitlines()[-1])


if __name__ == "__main__":
    main()
