"""Tables of methods, in a terminal and in Markdown, and of their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.padding import Padding

from hpcule.craft.described import PRESETS, settings_of
from hpcule.craft.measured import MeasuredRow, hardest_pretrained, measured_rows, percentages, seed_count
from hpcule.craft.records import PublishedDocument, RecordDocument, record_sentence
from hpcule.craft.stripped import StrippedRow
from hpcule.craft.survey import MethodDocument, describe
from hpcule.craft.table import BUILT_IN
from hpcule.report.terminal import plain_console, titled_table

WIDTH = 100
KEY = (
    "One for each: what one perturbation is for, by default first. Labels: by class, if it is for a class;",
    "or clusters, unless clusters are asked for. Own sizes: whether images of different sizes are published at these,",
    "with the perturbation resized or drawn again. DICOM: and NIfTI, in stored values of up to 16 bits. Measured:",
    "accuracy in percent of small victims of protected samples / random noise / clean ones; pre-trained: of the best",
    "attacker with pre-trained weights, with the settings that withstood it best; balanced accuracy where classes are",
    "unequal. Empty: not measured.",
)
"""What the columns of the terminal's table mean."""


def print_methods(rows: Sequence[MethodDocument]) -> None:
    """Print what each method is, costs, and is known to be weak in, and then where each can be used, in 100 columns."""
    console = plain_console(WIDTH)
    for row in rows:
        encoder = " needs an encoder's weights;" if row["needs_checkpoint"] else ""
        console.print(f"{row['name']}: {row['title']} ({row['paper']});{encoder} {row['cost']}.")
        lines = [f"Weaknesses: {row['weaknesses']}.", *(f"Record: {record_sentence(one)}." for one in row["records"])]
        console.print(Padding("\n".join(lines), (0, 0, 1, 4)))
    table = titled_table("")
    for heading in ("method", "one for each", "labels", "own sizes", "DICOM", "measured", "pre-trained"):
        table.add_column(heading)
    for row in rows:
        figures = _measured(row["name"]), _pretrained(row)
        table.add_row(row["name"], ", ".join(row["units"]), row["labels"], _own_sizes(row), _medical(row), *figures)
    console.print(table)
    console.print(" ".join(KEY))


def methods_table() -> str:
    """The built-in methods, each linked to its page, as docs/methods/README.md shows them."""
    methods, _ = describe()
    return _table(
        (
            *("method", "what it is", "data", "labels", "own sizes", "DICOM, NIfTI", "cost"),
            *("its authors claim that it withstands", "measured", "pre-trained attackers", "paper"),
        ),
        (
            (
                f"[{row['name']}]({row['name']}.md)",
                row["title"],
                row["data"],
                row["labels"],
                _own_sizes(row),
                _medical(row),
                row["cost"],
                row["claimed"],
                _measured(row["name"], mark=True),
                _pretrained(row, in_full=True),
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


def records_table(rows: Sequence[RecordDocument]) -> str:
    """Published figures next to ours, in percent."""
    return _table(
        (
            "record",
            "published",
            "here",
            "random noise",
            "clean",
            "of",
            "how many",
            "hours",
            "what else differs",
            "source",
        ),
        (
            (
                f"[{row['method']}](methods/{row['method']}.md) {row['data']}",
                _published(row["published"]),
                _with_interval(row["measured"]),
                f"{100 * row['measured']['noise']:.1f}",
                f"{100 * row['measured']['clean']:.1f}",
                f"{row['network']}, {row['recipe']}, preset {row['measured']['preset']}",
                _extent(row["measured"]),
                f"{row['measured']['hours']:.1f}",
                row.get("note", ""),
                row["published"]["source"],
            )
            for row in rows
        ),
    )


def _published(figure: PublishedDocument) -> str:
    clean = f", clean {100 * figure['clean']:.2f}" if "clean" in figure else ""
    return f"{100 * figure['protected']:.2f}{clean} ({figure['network']})"


def _with_interval(row: MeasuredRow) -> str:
    text = f"{100 * row['protected']:.1f}"
    return f"{text} ({' to '.join(f'{100 * bound:.1f}' for bound in row['interval'])})" if row["interval"] else text


def _extent(row: MeasuredRow) -> str:
    """Samples and seeds, and whether that is less than was published."""
    return f"{row['samples']:,} samples, {seed_count(row)}" + (", reduced" if row["reduced"] else "")


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


def _measured(method: str, *, mark: bool = False) -> str:
    """Protected / random noise / clean accuracy in percent, of the plain recipe; empty: not measured.

    `mark` adds a dagger where the preset is too short to judge the method.
    """
    plain = [
        row for row in measured_rows() if row["variant"].lower() == row["method"] == method and row["recipe"] == "plain"
    ]
    if not plain:
        return ""
    best = max(plain, key=lambda row: row["seeds"])
    return f"{percentages(best)} †" if mark and best["too_short"] else percentages(best)


def _own_sizes(row: MethodDocument) -> str:
    return row["own_sizes"] if row["data"] == "images" else ""


def _medical(row: MethodDocument) -> str:
    """Whether a method can be published as DICOM and NIfTI, and whether its budget then bounds anything."""
    if row["data"] != "images":
        return ""
    return ("yes" if row["bounded"] else "no bound") if row["medical"] else "no"


def _pretrained(row: MethodDocument, *, in_full: bool = False) -> str:
    """What the best attacker with pre-trained weights reached with the settings that withstood it best, in full with
    these settings and the record; empty: not measured."""
    found = hardest_pretrained(row["pretrained"])
    if found is None:
        return ""
    return f"{found['variant']}: {percentages(found)} ({found['record']})" if in_full else percentages(found)


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
