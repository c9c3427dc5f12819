"""What is left of each craft of a study, attacker by attacker, and at worst; a table in Markdown.

Left is what victims learn beyond chance as a share of what the clean control learns beyond chance, by balanced
accuracy, as a mean over the seeds that are done; the worst case has an interval at 95 % where there are several.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import hpcule
from hpcule.measure.accuracy import has_learnt, interval

CONTROLS = {"noise": "random noise", "spectrum": "noise of its spectrum"}
Shares = Mapping[str, Sequence[float]]
"""What is left by recipe, a value a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="+", help="folders of studies, whose recipes are put together")
    options = parser.parse_args()
    rows = [row for folder in options.study for row in hpcule.load_study(folder).cells.to_dict("records")]
    chance = min(row["balanced_chance"] for row in rows)
    learnt = [row for row in rows if has_learnt(row["clean_balanced"], chance)]
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    print(f"{len(rows) - len(learnt)} of {len(rows)} cells are left out, whose clean control has not learnt.\n")
    print("| | worst case | seeds |", *(f"{recipe} |" for recipe in recipes))
    print("| --- " * (3 + len(recipes)) + "|")
    clean: dict[str, list[float]] = defaultdict(list)
    for row in learnt:
        clean[row["recipe"]].append(row["clean_balanced"])
    figures = " | ".join(f"{100 * sum(clean[recipe]) / len(clean[recipe]):.0f} %" for recipe in recipes)
    print(f"| clean, balanced accuracy | | | {figures} |")
    for title, shares in by_craft(learnt, chance).items():
        print(line(title, shares, recipes))


def by_craft(rows: Sequence[Mapping[str, float | str]], chance: float) -> Mapping[str, Shares]:
    """What is left of every variant and, below it, of its controls."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for role, title in {"protected": "", **CONTROLS}.items():
            value = row.get(f"{role}_balanced")
            if isinstance(value, float) and not math.isnan(value):  # a role that a study does not have
                name = f"{row['variant']}, {title}".removesuffix(", ")
                clean = float(row["clean_balanced"])
                found[name][str(row["recipe"])].append((value - chance) / (clean - chance))
    return found


def line(title: str, shares: Shares, recipes: Sequence[str]) -> str:
    """A row of the table; the worst case is that of the recipe with the largest mean."""
    means = {recipe: sum(values) / len(values) for recipe, values in shares.items()}
    worst = max(means, key=lambda recipe: means[recipe])
    bounds = interval(shares[worst])
    text = f"{100 * means[worst]:.0f} %" + (f" ({100 * bounds[0]:.0f} to {100 * bounds[1]:.0f})" if bounds else "")
    cells = [f"{100 * means[recipe]:.0f} %" if recipe in means else "" for recipe in recipes]
    return f"| {title} | {text} | {len(shares[worst])} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
