"""A repetition of a record, in a terminal."""

from __future__ import annotations

from hpcule.craft.measured import MeasuredRow
from hpcule.report.terminal import plain_console, titled_table
from hpcule.study.repetition import RecordAgainDocument

WIDTH = 100
DELTAS = {
    True: "The perturbations are the same, by SHA-256.",
    False: "The perturbations are others than those of the record, by SHA-256: other data, or rounding.",
    None: "The record has no hashes of its perturbations.",
}
"""What `same_deltas` means."""
TITLES = {"protected": "protected", "noise": "random noise", "clean": "clean"}


def print_repetition(found: RecordAgainDocument) -> None:
    """Print the published figure, the recorded and the new ones, and their differences."""
    console = plain_console(WIDTH)
    published, old, new = found["published"], found["recorded"], found["repeated"]
    clean = f", clean {100 * published['clean']:.2f} %" if "clean" in published else ""
    figure = f"{100 * published['protected']:.2f} %{clean}"
    console.print(f"{found['method']} on {found['data']}, published: {figure} ({published['network']})")
    console.print(f"Source: {published['source']}")
    if "note" in found:
        console.print(f"What else differs: {found['note']}.")
    table = titled_table(f"{old['network']}, {old['recipe']}, {old['measure']} in percent, 95 % interval over seeds:")
    table.add_column("trained on")
    for heading in ("record", "now", "difference"):
        table.add_column(heading, justify="right")
    values = {"protected": (_protected(old), _protected(new))}
    values |= {"noise": (_percent(old["noise"]), _percent(new["noise"]))}
    values |= {"clean": (_percent(old["clean"]), _percent(new["clean"]))}
    for name, title in TITLES.items():
        table.add_row(title, *values[name], f"{100 * found['differences'][name]:+.1f}")
    table.add_row("seeds", str(old["seeds"]), str(new["seeds"]), "")
    table.add_row("samples", f"{old['samples']:,}", f"{new['samples']:,}", "")
    table.add_row("worker-hours", f"{old['hours']:.2f}", f"{new['hours']:.2f}", "")
    console.print(table)
    console.print(DELTAS[found["same_deltas"]])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _protected(row: MeasuredRow) -> str:
    bounds = row["interval"]
    return _percent(row["protected"]) + (f" ({' to '.join(map(_percent, bounds))})" if bounds else "")
