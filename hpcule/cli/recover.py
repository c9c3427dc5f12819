"""`hpcule recover STORE --data DATA`: what a few clean samples bring back, near a network."""

from __future__ import annotations

import argparse
from typing import Any

from hpcule.cli.measured import add_verb, run_measure


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "let a network trained on the protected copy learn from some clean samples, beside a clean control"
    add_verb(verbs, "recover", what, run)


def run(options: argparse.Namespace) -> None:
    """Attack."""
    from hpcule.probes.recovery import RecoveryConfig, measure_recovery
    from hpcule.report.probes import print_recovery, write_probe

    run_measure(options, "recover", RecoveryConfig, measure_recovery, print_recovery, write_probe)
