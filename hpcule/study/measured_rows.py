"""What the cells of a study say of methods: each variant, network and recipe over all seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from hpcule.craft.measured import MeasuredRow
from hpcule.craft.table import find
from hpcule.measure.accuracy import ACCURACY, BALANCED, has_learnt, summarise
from hpcule.study.config import StudyConfig
from hpcule.victim.kinds import TITLES

CellText = Mapping[str, str]
"""A row of cells.csv as it is read."""
HOUR = 3600


def measured_rows_of(study: StudyConfig, cells: Sequence[CellText], record: str) -> Iterator[MeasuredRow]:
    """The rows of a study that compares methods; those whose clean control has not learnt are left out.

    Args:
        study: with variants or without, and with no factor but the victims' network.
        cells: of its cells.csv.
        record: name of that file in the rows.
    """
    valid = [cell for cell in cells if cell["invalid"] == "False"]
    for variant in study.variants or [study.method]:
        own = [cell for cell in valid if cell.get("variant", variant) == variant]
        networks = dict.fromkeys(cell.get("victim.network", study.victim.network) for cell in own)
        for network, recipe in [(network, recipe.name) for network in networks for recipe in study.recipes]:
            same = [
                cell
                for cell in own
                if cell["recipe"] == recipe and cell.get("victim.network", study.victim.network) == network
            ]
            row = _row(study, variant, network, same, record) if same else None
            if row is not None and has_learnt(row["clean"], row["chance"]):
                yield row


def _row(study: StudyConfig, variant: str, network: str, cells: Sequence[CellText], record: str) -> MeasuredRow:
    measure, chance, which = headline(cells[0])
    settings = study.variant(variant if study.variants else None)
    protected = summarise([float(cell[f"protected_{which}"]) for cell in cells])
    return {
        "method": settings.method,
        "record": record,
        "variant": variant,
        "data": study.data,
        "samples": int(cells[0]["samples"]),
        "preset": settings.preset,
        "too_short": settings.preset in find(settings.method).facts.too_short,
        "network": network,
        "recipe": cells[0]["recipe"],
        "seeds": len({cell["seed"] for cell in cells}),
        "measure": measure,
        "chance": round(chance, 4),
        "protected": round(protected.mean, 4),
        "interval": protected.interval and [round(bound, 4) for bound in protected.interval],
        "noise": _mean(cells, f"noise_{which}"),
        "clean": _mean(cells, f"clean_{which}"),
        "craft_seconds": _mean(cells, "craft_seconds"),
        "hours": round(_worker_hours(cells), 2),
        "reduced": settings.preset != "paper" or (study.subset or study.samples) is not None,
        "deltas": [cell["craft_deltas"] for cell in cells if cell.get("craft_deltas")],
    }


def headline(cell: CellText) -> tuple[str, float, str]:
    """The measure by which a cell is judged, as in a protection report, its chance level and the end of its columns.

    It is balanced accuracy where always naming the largest class would count as learnt by its standard.
    """
    measure, chance, balanced = cell.get("measure", ACCURACY), float(cell["chance"]), cell.get("balanced_chance")
    if measure == ACCURACY and balanced and has_learnt(chance, float(balanced)):
        return BALANCED, float(balanced), "balanced"
    return measure, chance, "last"


def _mean(cells: Sequence[CellText], column: str) -> float:
    return round(fmean(float(cell[column]) for cell in cells), 4)


def _worker_hours(cells: Sequence[CellText]) -> float:
    crafts = sum(float(cell["craft_worker_hours"]) for cell in cells)
    ranks = [int(cell.get("victim_workers") or 1) for cell in cells]
    victims = sum(
        workers * float(cell.get(f"{kind}_seconds") or 0)
        for cell, workers in zip(cells, ranks, strict=True)
        for kind in TITLES
    )
    return crafts + victims / HOUR
