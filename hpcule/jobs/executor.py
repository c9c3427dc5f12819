"""submitit's executor for Slurm, with scripts that are known before they are submitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, JobPaths

from hpcule.jobs.command import Command


class ArrayExecutor(submitit.SlurmExecutor):
    """Submits commands as one array each time, even a single one: dependencies name a task of a job as ID_INDEX.

    What is known only on submission, the numbers of jobs that are waited for, goes to sbatch as options. So the script
    is the same text before and after.
    """

    login_shell = False
    options: Sequence[str] = ()

    @classmethod
    def affinity(cls) -> int:
        """Accept every machine: scripts can be written where Slurm is not."""
        return 1

    def script(self, tasks: int) -> str:
        """The script of an array with this number of tasks."""
        self.parameters["map_count"] = tasks
        return str(self._make_submission_file_text(self._submitit_command_str, ""))

    def submit_tasks(self, commands: Sequence[Command], options: Sequence[str]) -> str:
        """Submit commands, one for each task; returns the number of the array.

        Raises:
            submitit.core.utils.FailedJobError: sbatch refuses.
        """
        self.parameters["map_count"] = len(commands)
        self.options = options
        job = str(self._submit_command(self._submitit_command_str).job_id)
        for index, command in enumerate(commands):
            path = JobPaths(self.folder, job_id=f"{job}_{index}").submitted_pickle
            partial = path.with_suffix(".partial")
            DelayedSubmission(command).dump(partial)
            partial.replace(path)
        return job

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text = str(super()._make_submission_file_text(command, uid))
        return text.replace("#!/bin/bash\n", "#!/bin/bash -l\n", 1) if self.login_shell else text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["sbatch", *self.options, str(submission_file_path)]
