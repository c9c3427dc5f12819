"""What every table in a terminal has in common."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table


def plain_console(width: int) -> Console:
    """A console that reads no markup, because names come from the user; of this width where no terminal is."""
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(markup=False, highlight=False, emoji=False, width=width)


def titled_table(title: str) -> Table:
    """A table without frame, its title on the left."""
    return Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
