"""The results of an evaluation in a terminal."""

from __future__ import annotations

from statistics import fmean

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hpcule.evaluation.claims import verdict, warnings
from hpcule.evaluation.results import (
    ProtectionDocument,
    capitalised,
    measures_of,
    noun,
    percent,
    percent_range,
    percentage_points,
    victims,
)
from hpcule.report.terminal import plain_console, titled_table

PLAIN_WIDTH = 100


def print_results(results: ProtectionDocument) -> None:
    """Print the verdict, the table of accuracies, the visibility and the warnings; plain text where no terminal is."""
    console = plain_console(PLAIN_WIDTH)
    console.print()
    console.print(verdict(results), style="bold red" if results["status"] == "invalid" else "bold")
    console.print()
    console.print(_table(results))
    console.print(_audibility(results) if "audibility" in results else _visibility(results))
    for paragraph in warnings(results):
        console.print(Padding(f"! {paragraph}", (1, 0, 0, 0)), style="yellow")
    console.print()
    console.print(
        "The figures hold for victims trained on the published copy with these recipes; "
        "the report lists what they do not cover."
    )


def _table(results: ProtectionDocument) -> Table:
    """One row a recipe and set: mean, interval and distance from the clean control."""
    invalid = "  INVALID" if results["status"] == "invalid" else ""
    chances = {recipe["measure"]: recipe["chance"] for recipe in results["recipes"]}
    guessed = ", ".join(percent(chance) for chance in dict.fromkeys(chances.values()))
    table = titled_table(
        f"{capitalised(measures_of(results))} on {results['data']['test']:,} clean test {noun(results)}, chance "
        f"{guessed}{invalid}"
    )
    table.add_column("Recipe and training set", overflow="fold")
    for heading in ("Last epoch", "95% interval", "vs clean", "Best epoch", "Training", "Seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for recipe in results["recipes"]:
        clean = victims(recipe, "clean")["mean"]
        measured = f" ({recipe['measure']})" if len(chances) > 1 else ""
        table.add_row(Text(f"{recipe['title']}{measured}", style="italic"))
        for entry in recipe["sets"]:
            seeds = entry["seeds"]
            table.add_row(
                Text(f"  {entry['title']}"),
                percent(entry["mean"]),
                percent_range(entry["interval"]),
                "" if entry["set"] == "clean" else percentage_points(entry["mean"] - clean),
                percent(fmean(victim["best"] for victim in seeds)),
                percent(fmean(victim["train_last"] for victim in seeds)),
                str(len(seeds)),
                end_section=entry is recipe["sets"][-1],
            )
    return table


def _visibility(results: ProtectionDocument) -> str:
    numbers, levels = results["visibility"], results["protection"]["levels"]
    decibels = (
        f"no {noun(results).removesuffix('s')} changed"
        if numbers["psnr_db"] is None
        else f"PSNR {numbers['psnr_db']:.1f} dB"
    )
    return (
        f"Visibility over {numbers['n']:,} {noun(results)}: {decibels}, SSIM {numbers['ssim_mean']:.3f} "
        f"(lowest {numbers['ssim_min']:.3f}), largest change {numbers['linf_levels']} of {levels} levels."
    )


def _audibility(results: ProtectionDocument) -> str:
    numbers, levels = results["audibility"], results["protection"]["levels"]
    decibels = "no recording changed" if numbers["snr_db"] is None else f"SNR {numbers['snr_db']:.1f} dB"
    return (
        f"Audibility over {numbers['n']:,} recordings: {decibels}, log-spectral distance "
        f"{numbers['log_spectral_db']:.2f} dB, Fréchet distance of log-mel frames {numbers['frechet_log_mel']:.3f}, "
        f"largest change {numbers['linf_levels']} of {levels} levels."
    )
