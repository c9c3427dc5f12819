"""What all pages are rendered with."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from hpcule.evaluation.results import capitalised, percent, percent_range, percentage_points, points_range


def environment() -> Environment:
    """The templates, and the filters that they need."""
    templates = Environment(
        loader=PackageLoader("hpcule.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = {
        "capitalised": capitalised,
        "percent": percent,
        "percent_range": percent_range,
        "points": percentage_points,
        "points_range": points_range,
    }
    templates.filters |= shown
    return templates
