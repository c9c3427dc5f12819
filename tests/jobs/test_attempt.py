"""What the tasks of a job know of its attempts, from files."""

from hpcule.jobs.attempt import Attempt
from hpcule.world.progress import note_saved


def attempt(folder, number):
    found = Attempt.of({"SUBMITIT_FOLDER": str(folder), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(number)})
    found.claim("lost")
    return found


def test_one_task_alone_may_act(tmp_path):
    first, second = (Attempt(tmp_path / "7", 0) for _ in range(2))
    assert first.claim("lost")
    assert not second.claim("stopped")
    assert Attempt(tmp_path / "7", 1).claim("lost")


def test_the_folder_is_the_jobs_own_and_private(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    element = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "2"}
    found = Attempt.of(element)
    assert found.claim("failed")
    assert found.folder == tmp_path / "hpcule-runs" / "jobs" / "8_2_attempts"
    assert found.number == 0
    assert found.folder.stat().st_mode & 0o777 == 0o700


def test_losses_are_counted_since_the_last_progress(tmp_path, monkeypatch):
    assert [attempt(tmp_path, number).repeated("lost") for number in range(3)] == [1, 2, 3]
    assert attempt(tmp_path, 2).repeated("time limit") == 0
    monkeypatch.setenv("HPCULE_PROGRESS", str(attempt(tmp_path, 3).progress))
    note_saved()
    assert attempt(tmp_path, 3).repeated("lost") == 0
    # Slurm's own requeues, of which no task knows, are neither.
    assert attempt(tmp_path, 5).repeated("lost") == 1
