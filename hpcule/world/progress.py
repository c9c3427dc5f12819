"""A command reports to the job that runs it that it has saved something which a later run continues from."""

from __future__ import annotations

import os
from pathlib import Path

PROGRESS = "HPCULE_PROGRESS"
"""Variable that names the file which a command creates when it has saved something; see `hpcule.jobs.attempt`."""


def note_saved() -> None:
    """Report that a checkpoint, a shard or a result is on the disk: the next run of this command will start from there.

    Nothing happens outside a job.
    """
    if path := os.environ.get(PROGRESS):
        Path(path).touch(mode=0o600)
