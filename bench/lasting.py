"""What is left of each craft of a study, attacker by attacker, and at worst; a table in Markdown.

Left is what victims learn beyond chance as a share of what the clean control of the same recipe learns, by balanced
accuracy, as a mean over the seeds that are done. The worst case is the recipe that reaches most, as a share of
what the most successful clean control learns beyond chance: an attacker chooses the recipe that does best. It has an
interval at 95 % where there are several seeds.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

import hpcule
from hpcule.measure.accuracy import has_learnt, interval

CONTROLS = {"noise": "random noise", "spectrum": "noise of its spectrum"}
Reached = Mapping[str, Sequence[float]]
"""What is learnt beyond chance by recipe, a value a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="+", help="folders of studies, or their cells.csv, put together")
    options = parser.parse_args()
    cells = (pd.read_csv(path) if path.is_file() else hpcule.load_study(path).cells for path in options.study)
    rows = [row for table in cells for row in table.to_dict("records")]
    chance = min(row["balanced_chance"] for row in rows)
    learnt = [row for row in rows if has_learnt(row["clean_balanced"], chance)]
    recipes = list(dict.fromkeys(row["recipe"] for row in learnt))
    print(f"{len(rows) - len(learnt)} of {len(rows)} cells are left out, whose clean control has not learnt.\n")
    print("| | worst case | seeds |", *(f"{recipe} |" for recipe in recipes))
    print("| --- " * (3 + len(recipes)) + "|")
    clean: dict[str, dict[int, float]] = defaultdict(dict)
    for row in learnt:
        clean[row["recipe"]][row["seed"]] = row["clean_balanced"] - chance
    controls = {recipe: list(clean[recipe].values()) for recipe in recipes}
    figures = " | ".join(f"{100 * (fmean(controls[recipe]) + chance):.0f} %" for recipe in recipes)
    print(f"| clean, balanced accuracy | | | {figures} |")
    for title, reached in by_craft(learnt, chance).items():
        print(line(title, reached, controls))


def by_craft(rows: Sequence[Mapping[str, float | str]], chance: float) -> Mapping[str, Reached]:
    """What is learnt of every variant and, below it, of its controls."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for role, title in {"protected": "", **CONTROLS}.items():
            value = row.get(f"{role}_balanced")
            if isinstance(value, float) and not math.isnan(value):  # a role that a study does not have
                name = f"{row['variant']}, {title}".removesuffix(", ")
                found[name][str(row["recipe"])].append(value - chance)
    return found


def line(title: str, reached: Reached, clean: Reached) -> str:
    """A row of the table."""
    worst = max(reached, key=lambda recipe: fmean(reached[recipe]))
    best = max(map(fmean, clean.values()))
    shares = [value / best for value in reached[worst]]
    bounds = interval(shares)
    text = f"{100 * fmean(shares):.0f} %" + (f" ({100 * bounds[0]:.0f} to {100 * bounds[1]:.0f})" if bounds else "")
    left = {recipe: fmean(values) / fmean(clean[recipe]) for recipe, values in reached.items()}
    cells = [f"{100 * left[recipe]:.0f} %" if recipe in left else "" for recipe in clean]
    return f"| {title} | {text} | {len(shares)} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
