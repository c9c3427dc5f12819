"""Write generated files: `python tools/pages.py` refreshes them, `python tools/pages.py --check` names stale ones."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from hpcule.config.tree import build, load_yaml
from hpcule.craft.measured import Row
from hpcule.study.config import StudyConfig

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "hpcule" / "craft" / "measured.json"


def main(arguments: list[str]) -> int:
    """Refresh or check; 1 where something is stale."""
    pages = {ROWS: measured()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(pages[path])
        print(f"{path.relative_to(ROOT)}: {'stale, run `make pages`' if '--check' in arguments else 'refreshed'}")
    return int(bool(stale) and "--check" in arguments)


def measured() -> str:
    """hpcule/craft/measured.json, a row a line."""
    rows = [row for path in sorted((ROOT / "docs" / "studies").glob("*.csv")) for row in rows_of(path)]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def rows_of(path: Path) -> Iterator[Row]:
    """Rows of a record that compares methods: each variant, network and recipe, over all seeds.

    A record that varies a setting of a craft, as the batch, says nothing of a method as it comes.
    """
    study = build(StudyConfig, load_yaml(ROOT / "configs" / "study" / f"{path.stem}.yaml"))
    if not study.variants or any(name.startswith("craft.") for name in study.factors):
        return
    with path.open() as file:
        cells = [cell for cell in csv.DictReader(file) if cell["invalid"] == "False"]
    for variant, settings in study.variants.items():
        own = [cell for cell in cells if cell["variant"] == variant]
        networks = dict.fromkeys(cell.get("victim.network", study.victim.network) for cell in own)
        for network, recipe in [(network, recipe) for network in networks for recipe in study.recipes]:
            same = [
                cell
                for cell in own
                if cell["recipe"] == recipe and cell.get("victim.network", study.victim.network) == network
            ]
            if not same:
                continue

            def figure(name: str, cells: list[dict[str, str]] = same) -> float:
                return round(mean(float(cell[name]) for cell in cells), 4)

            yield {
                "method": str(settings.get("method", study.method)),
                "record": str(path.relative_to(ROOT)),
                "variant": variant,
                "data": study.data,
                "samples": int(same[0]["samples"]),
                "preset": str(settings.get("preset", study.preset)),
                "network": network,
                "recipe": recipe,
                "seeds": len({cell["seed"] for cell in same}),
                "protected": figure("protected_last"),
                "noise": figure("noise_last"),
                "clean": figure("clean_last"),
                "craft_seconds": figure("craft_seconds"),
            }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
