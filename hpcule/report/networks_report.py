"""What the reports of measures on networks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from hpcule.evaluation.results import percent

LABELS = {"clean": "clean control", "protected": "protected"}
WIDTH = 100


def page_context(results: Mapping[str, Any], title: str, **own: Any) -> dict[str, Any]:
    """What the page of a measure shows, and its panel in a protection report; `own` are the parts of this measure."""
    settings = yaml.safe_dump(dict(results["settings"]), sort_keys=False)
    return {"title": title, "results": results, "labels": LABELS, "settings": settings, **own}


def not_learnt(results: Mapping[str, Any], how: str = "") -> list[str]:
    """A paragraph where the network on clean samples did not learn; `how` it was tested."""
    if results["status"] != "invalid":
        return []
    return [
        f"INVALID: the network on clean samples reached {percent(results['clean']['last'])}{how}, chance is "
        f"{percent(results['data']['chance'])}. Train longer."
    ]
