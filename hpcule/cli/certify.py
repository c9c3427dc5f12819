"""`hpcule certify STORE --data DATA`: a bound on what is learnt from the protected samples, beside clean ones."""

from __future__ import annotations

import argparse
from typing import Any

from hpcule.cli.measured import add_verb, run_measure


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "bound the accuracy around a network that was trained on the protected copy, beside clean ones"
    add_verb(verbs, "certify", what, run)


def run(options: argparse.Namespace) -> None:
    """Certify."""
    from hpcule.probes.certify import CertifyConfig, certify
    from hpcule.report.probes import print_certificate, write_probe

    run_measure(options, "certify", CertifyConfig, certify, print_certificate, write_probe)
