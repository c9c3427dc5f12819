"""A comparison of stores: in a terminal, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hpcule.evaluation.claims import SAME
from hpcule.evaluation.comparison import ComparedDocument, StoresDocument, protects, worst_accuracy
from hpcule.evaluation.recommendation import Advice, RecommendationDocument
from hpcule.evaluation.results import capitalised, percent, with_article
from hpcule.measure.accuracy import wilson
from hpcule.report.page import environment
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import write_atomically

WIDTH = 120


def print_comparison(results: StoresDocument) -> None:
    """Print the verdict, a row for every store, and what must be read with them."""
    console = plain_console(WIDTH)
    console.print(f"\n{comparison_verdict(results)}\n")
    console.print(_table(results))
    _print_warnings(console, results)


def print_recommendation(results: RecommendationDocument, advised: Advice) -> None:
    """Print the advice and its evidence, a row for every finalist, and what must be read with them."""
    console = plain_console(WIDTH)
    console.print(f"\n{advised.answer}\n", style="bold")
    console.print(f"{advised.evidence}\n")
    for number, step in enumerate(advised.steps, 1):
        console.print(f"{number}. {step}")
    console.print()
    console.print(_table(results))
    for paragraph in advised.limits:
        console.print(f"\n{paragraph}")
    _print_warnings(console, results)


def _table(results: StoresDocument) -> Table:
    measure, test = capitalised(results["measure"]), results["data"]["test"]
    table = titled_table(f"{measure} on {test:,} clean test samples, by training set")
    table.add_column("store", overflow="fold")
    for heading in (*results["titles"], "worst case", "PSNR"):
        table.add_column(heading, justify="right")
    table.add_row("clean control", *(percent(value) for value in results["clean"].values()), "", "")
    for row in results["stores"]:
        accuracies = [percent(measure["protected"]) for measure in row["recipes"].values()]
        decibels = f"{row['psnr_db']:.1f} dB" if "psnr_db" in row else ""
        table.add_row(row["name"], *accuracies, percent(worst_accuracy(row)), decibels)
    return table


def _print_warnings(console: Console, results: StoresDocument) -> None:
    for paragraph in comparison_warnings(results):
        console.print(f"\n! {paragraph}", style="yellow")


def write_comparison(results: StoresDocument, path: Path, notes: Sequence[str] = ()) -> None:
    """Write the page, readable by its owner alone, with notes at its top; the stores have their own in `reports`.

    Raises:
        StoreError: it cannot be written.
    """
    page = environment().get_template("compare.html.j2")
    text = page.render(
        results=results,
        verdict=comparison_verdict(results),
        notes=notes,
        warnings=comparison_warnings(results),
        worst_accuracy=worst_accuracy,
    )
    write_atomically(path, text.encode())


def write_recommendation(results: RecommendationDocument, path: Path, advised: Advice) -> None:
    """Write the page of a tournament, readable by its owner alone; the finalists have their own in `reports`.

    Raises:
        StoreError: it cannot be written.
    """
    page = environment().get_template("recommend.html.j2")
    text = page.render(
        results=results, advised=advised, warnings=comparison_warnings(results), worst_accuracy=worst_accuracy
    )
    write_atomically(path, text.encode())


def comparison_verdict(results: StoresDocument) -> str:
    """Which store leaves the lowest accuracy to its most successful victims."""
    if results["status"] == "invalid":
        return "INVALID: the clean controls did not learn, so the stores cannot be compared. Train longer."
    best = results["stores"][0]
    opening = "Best worst case"
    if not protects(results):
        opening = f"No store protects in its worst case. Lowest worst-case {results['measure']}"
    return (
        f"{opening}: {best['name']} ({best['title']}). The most successful victims "
        f"({results['titles'][best['worst']]}) reach {with_article(results['measure'])} of "
        f"{percent(worst_accuracy(best))} on clean test samples after training on it, compared with "
        f"{percent(results['clean'][best['worst']])} after training on clean ones; chance level is "
        f"{percent(results['chance'])}."
    )


def comparison_warnings(results: StoresDocument) -> list[str]:
    """Paragraphs that limit what the order of the stores means, to be read first."""
    if results["status"] == "invalid":
        return []
    paragraphs = []
    best, test = results["stores"][0], results["data"]["test"]
    low, high = wilson(worst_accuracy(best) * results["effective"], results["effective"])
    equals = [row["name"] for row in results["stores"][1:] if worst_accuracy(row) <= max(high, low + SAME)]
    if equals:
        paragraphs.append(
            f"With {test:,} test samples, {', '.join(equals)} cannot be distinguished from {best['name']} in the "
            "worst case."
        )
    if results["seeds"] == 1:
        paragraphs.append(
            "With one seed, another training may change the order. Compare the best stores again with more seeds."
        )
    paragraphs += [_noise(row) for row in results["stores"] if _no_better_than_noise(row)]
    if any(row["reduced"] for row in results["stores"]):
        names = ", ".join(row["name"] for row in results["stores"] if row["reduced"])
        paragraphs.append(f"Crafted with reduced settings: {names}. With full settings a method may rank differently.")
    budgets = {(row["norm"], row["epsilon"]) for row in results["stores"]}
    if len(budgets) > 1:
        paragraphs.append("The stores have different budgets: compare their accuracies together with their PSNR.")
    paragraphs.append(
        "The lowest of several accuracies is biased downwards by chance, and countermeasures that are not among the "
        "recipes were not tried."
    )
    return paragraphs


def _no_better_than_noise(row: ComparedDocument) -> bool:
    measure = row["recipes"][row["worst"]]
    return measure["noise"] - measure["protected"] < SAME


def _noise(row: ComparedDocument) -> str:
    measure = row["recipes"][row["worst"]]
    return (
        f"In its worst case, {row['name']} is no better than random noise of the same budget: "
        f"{percent(measure['protected'])} compared with {percent(measure['noise'])}."
    )
