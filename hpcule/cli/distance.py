"""`hpcule distance STORE --data DATA`: the Unlearnable Distance, from the sharpness of layers."""

from __future__ import annotations

import argparse
from typing import Any

from hpcule.cli.measured import add_verb, run_measure


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "measure the Unlearnable Distance: layers that learn from the protected copy, beside clean samples"
    add_verb(verbs, "distance", what, run)


def run(options: argparse.Namespace) -> None:
    """Measure."""
    from hpcule.probes.unlearnable_distance import DistanceConfig, measure_distance
    from hpcule.report.probes import print_distance, write_probe

    run_measure(options, "distance", DistanceConfig, measure_distance, print_distance, write_probe)
