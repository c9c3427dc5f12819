"""What the victims of an evaluation will take, in sentences."""

from __future__ import annotations

from hpcule.evaluation.suites import EvaluateConfig
from hpcule.report.plan_table import duration
from hpcule.victim.countermeasures.fitted import fitted_steps


def planned(config: EvaluateConfig, victims: int, seconds: float) -> str:
    """How many victims there are to train, and about how many seconds that takes; see `Setup.plan`."""
    steps = [step.name for recipe in config.recipes for step in fitted_steps(recipe.countermeasures)]
    uncounted = ", ".join(dict.fromkeys(steps))
    more = f", and what fitting {uncounted} takes" if uncounted else ""
    return f"{victims} victims to train, about {duration(seconds)}, judged by a short training of each recipe{more}"


def remaining(done: int, total: int, seconds: float, workers: int) -> str:
    """How many victims are done, and about how many seconds the others take; see `Setup.left`."""
    each = " of each worker" if workers > 1 else ""
    return f"{done} of {total} victims{each} done, about {duration(seconds)} left"
