"""A plan in a terminal: a column a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from hpcule.planning.plan import StudyPlan
from hpcule.planning.predict import Prediction
from hpcule.report.terminal import plain_console, titled_table

PLAIN_WIDTH = 110
Plan = TypeVar("Plan", Prediction, StudyPlan)


def print_craft(title: str, plans: Sequence[Prediction], basis: Mapping[str, list[str]]) -> None:
    """Print the prediction of a craft on each machine."""
    rows: list[tuple[str, Callable[[Prediction], str]]] = [
        ("nodes x workers", lambda plan: f"{plan.nodes} x {plan.workers // plan.nodes}"),
        ("samples", lambda plan: f"{plan.samples:,}"),
        ("shards", lambda plan: f"{plan.shards:,}"),
        ("wall time", lambda plan: ("at least " if plan.lower_bound else "") + duration(plan.wall_seconds)),
        ("  start", lambda plan: duration(plan.start_seconds)),
    ]
    for number, stage in enumerate(plans[0].stages):
        rows += [
            (f"  {stage.stage}: compute", _stage_cell(number, "compute_seconds")),
            (f"  {stage.stage}: sums", _stage_cell(number, "communication_seconds")),
        ]
    rows += [
        ("  agreeing after each step", lambda plan: duration(plan.agree_seconds)),
        ("  reading and writing", lambda plan: duration(plan.storage_seconds)),
        ("craft_seconds", lambda plan: duration(plan.craft_seconds)),
        ("node-hours", lambda plan: hours(plan.node_hours)),
        ("worker-hours", lambda plan: hours(plan.worker_hours)),
        ("memory a worker", lambda plan: size(plan.memory_bytes)),
        ("store on disk", lambda plan: size(plan.store_bytes)),
        ("a checkpoint (two are kept)", lambda plan: size(plan.checkpoint_bytes)),
        ("sent by a worker", lambda plan: "not known" if plan.traffic_bytes is None else size(plan.traffic_bytes)),
    ]
    _print(title, plans, rows, basis)


def print_study(title: str, plans: Sequence[StudyPlan], basis: Mapping[str, list[str]]) -> None:
    """Print the prediction of a study on each machine."""
    rows: list[tuple[str, Callable[[StudyPlan], str]]] = [
        ("nodes x workers", lambda plan: f"{plan.nodes} x {plan.workers // plan.nodes}"),
        ("crafts, victims", lambda plan: f"{plan.crafts}, {plan.victims}"),
        ("wall time", lambda plan: ("at least " if plan.lower_bound else "") + duration(plan.wall_seconds)),
        ("  start", lambda plan: duration(plan.start_seconds)),
        ("  crafts", lambda plan: duration(plan.craft_seconds)),
        ("  victims", lambda plan: duration(plan.victim_seconds)),
        ("node-hours", lambda plan: hours(plan.node_hours)),
        ("worker-hours", lambda plan: hours(plan.worker_hours)),
        ("memory a worker", lambda plan: size(plan.memory_bytes)),
        ("stores on disk", lambda plan: size(plan.store_bytes)),
        ("sent by a worker", lambda plan: "not known" if plan.traffic_bytes is None else size(plan.traffic_bytes)),
    ]
    _print(title, plans, rows, basis)


def duration(seconds: float) -> str:
    """Seconds as people read them: 0.12 s, 4 min 5 s, 3 h 20 min, 12 d 4 h."""
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    if seconds < 100 * 3600:
        return "{} h {} min".format(*divmod(round(seconds / 60), 60))
    return "{:,} d {} h".format(*divmod(round(seconds / 3600), 24))


def hours(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def size(number: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if number < 100 else f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def _stage_cell(number: int, name: str) -> Callable[[Prediction], str]:
    return lambda plan: duration(getattr(plan.stages[number], name))


def _print(
    title: str, plans: Sequence[Plan], rows: Sequence[tuple[str, Callable[[Plan], str]]], basis: Mapping[str, list[str]]
) -> None:
    """A row of cells a plan each, then what limits the plans and what they rest on."""
    console = plain_console(PLAIN_WIDTH)
    table = titled_table(title)
    table.add_column("")
    for plan in plans:
        table.add_column(plan.machine, justify="right")
    for name, cell in rows:
        table.add_row(name, *map(cell, plans))
    console.print(table)
    for plan in plans:
        for line in plan.limits:
            console.print(f"! {plan.machine}: {line}", style="yellow")
    for name, lines in basis.items():
        for line in lines:
            console.print(f"{name}: {line}")
