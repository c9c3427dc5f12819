"""`hpcule.methods`: the table of methods."""

from __future__ import annotations


def methods() -> list[dict[str, object]]:
    """The table of methods, as `hpcule methods --json` prints it.

    Returns:
        One dictionary a method: `name`, `title`, the survey's seven facts (`data`, `task`, `intent`, `needs_labels`,
        `bounded`, `needs_surrogate`, ...), `needs_checkpoint`, `cost`, `paper` and `weaknesses`; what follows from the
        code, `units`, `labels`, `own_sizes` and `medical`; and what was measured, `measured` and `pretrained`. A
        method of another package that cannot be imported is left out, with a warning of the logger `hpcule`.
    """
    from hpcule.craft.survey import describe
    from hpcule.interface.process import log

    rows, broken = describe()
    for message in broken:
        log.warning("%s", message)
    return [dict(row) for row in rows]
