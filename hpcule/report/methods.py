"""Tables of methods and of their settings, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcule.craft.described import PRESETS, settings_of
from hpcule.craft.measured import measured_rows
from hpcule.craft.stripped import StrippedRow
from hpcule.craft.table import BUILT_IN, describe


def methods_table() -> str:
    """The built-in methods, each linked to its page, as docs/methods/README.md shows them."""
    methods, _ = describe()
    return _table(
        ("method", "what it is", "data", "labels", "cost", "its authors claim that it withstands", "measured", "paper"),
        (
            (
                f"[{row['name']}]({row['name']}.md)",
                row["title"],
                row["data"],
                "needed" if row["needs_labels"] else "not needed",
                row["cost"],
                row["claimed"],
                _measured(row["name"]),
                row["paper"],
            )
            for row in methods
            if row["name"] in BUILT_IN
        ),
    )


def settings_table(method: str) -> str:
    """The settings of a method; a preset's cell is empty where its value is that of `paper`."""
    return _table(
        ("setting", *PRESETS, "valid", "what"),
        (
            (f"`{setting.name}`", *_cells(setting.values), setting.valid, setting.description)
            for setting in settings_of(method)
        ),
    )


def stripping_table(rows: Sequence[StrippedRow]) -> str:
    """What stripping left of the methods' perturbations, in levels, and the accuracies in percent."""
    ways = ("protected", "pattern", "filter")
    return _table(
        (
            "method",
            "preset",
            "one for each",
            "originals a class",
            "of all",
            *(f"levels: {way}" for way in ways),
            *(f"accuracy: {name}" for name in ("clean", *ways)),
        ),
        (
            (
                row["method"],
                row["preset"],
                row["unit"],
                str(row["originals"]),
                f"{100 * row['known'] / row['samples']:.2g} %",
                *(f"{row['levels'][way]:.2f}" for way in ways),
                *(f"{100 * row['accuracy'][name]:.1f}" if row["accuracy"] else "" for name in ("clean", *ways)),
            )
            for row in rows
        ),
    )


def setting_text(value: object) -> str:
    """A value as `--set` takes it; — is null."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(setting_text, value))}]"
    return str(value)


def _measured(method: str) -> str:
    """Protected / random noise / clean accuracy in percent, of the plain recipe; empty: not measured."""
    plain = [
        row for row in measured_rows() if row["variant"].lower() == row["method"] == method and row["recipe"] == "plain"
    ]
    if not plain:
        return ""
    best = max(plain, key=lambda row: row["seeds"])
    return f"{100 * best['protected']:.0f} / {100 * best['noise']:.0f} / {100 * best['clean']:.0f} %"


def _cells(values: Mapping[str, object]) -> Iterator[str]:
    paper = values[PRESETS[0]]
    yield setting_text(paper)
    for preset in PRESETS[1:]:
        yield "" if values[preset] == paper else setting_text(values[preset])


def _table(heading: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines) + "\n"
