"""Scripts before they are submitted, and submissions to a stand-in for sbatch; tests/cluster has the real one."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.code_copy import code_copy, is_current, make_copy
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.submit import CommandBatch, Submission, scripts, submit_batches

pytest.importorskip("submitit", reason="needs the extra 'slurm'")

CRAFT = CommandBatch("craft", "craft", [["study", "item", "DIR", "a"], ["study", "item", "DIR", "b"]])
VICTIM = CommandBatch("victim", "victim", [["study", "item", "DIR", "c"]], "aftercorr:{craft}")


def submission(folder, **settings):
    site = build_config(SiteConfig, {"nodes": 2, "tasks_per_node": 3, **settings})
    return Submission(site, folder / "study")


def drafted(folder, **settings):
    """The scripts of a craft and a victim, each with the line of its call."""
    call, craft, waiting_call, victim = scripts([CRAFT, VICTIM], submission(folder, **settings))
    return f"{call}\n{craft}", f"{waiting_call}\n{victim}"


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Programs that note how they were called and keep every script; sbatch refuses a script that holds REFUSED."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(
        f"""#!/bin/bash
        echo "sbatch $*" >> {tmp_path}/calls
        for last; do true; done
        if grep -q REFUSED "$last"; then echo "sbatch: error: invalid" >&2; exit 1; fi
        number=$(grep -c sbatch {tmp_path}/calls)
        cp "$last" {tmp_path}/script-$number
        echo "Submitted batch job $number"
        """
    )
    (programs / "scancel").write_text(f'#!/bin/bash\necho "scancel $*" >> {tmp_path}/calls\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: (tmp_path / "calls").read_text().splitlines()


def test_joint_jobs_take_all_ranks_and_others_one(tmp_path):
    craft, victim = drafted(tmp_path, gpus_per_node=3)
    for line in ("--nodes=2", "--ntasks-per-node=3", "--gpus-per-node=3", "--requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}\n" in craft
    for line in ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1"):
        assert f"#SBATCH {line}\n" in victim
    assert "--kill-on-bad-exit=0 --wait=60" in craft


def test_jobs_of_joint_victims_start_as_many_tasks(tmp_path):
    joint = dataclasses.replace(VICTIM, workers=4)
    _, _, _, script = scripts([CRAFT, joint], submission(tmp_path, gpus_per_node=3))
    for line in ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in script


def test_a_stage_has_its_own_resources(tmp_path):
    own = {"partition": "small", "tasks_per_node": 4, "minutes": 7, "sbatch": {"nice": 100}}
    craft, victim = drafted(tmp_path, partition="large", minutes=90, sbatch={"begin": "now"}, victim=own)
    for line in ("--partition=large", "--ntasks-per-node=3", "--time=90", "--begin=now"):
        assert f"#SBATCH {line}\n" in craft
    assert "--nice" not in craft
    for line in ("--partition=small", "--ntasks-per-node=4", "--time=7", "--begin=now", "--nice=100"):
        assert f"#SBATCH {line}\n" in victim


def test_an_array_waits_for_the_one_before_it(tmp_path):
    craft, victim = drafted(tmp_path, at_once=1)
    assert "dependency" not in craft
    assert "#SBATCH --array=0-1%1\n" in craft
    assert "sbatch --dependency=aftercorr:ID-OF-CRAFT SCRIPT\n" in victim


def test_the_sites_own_lines_are_there(tmp_path):
    craft, _ = drafted(
        tmp_path,
        **{"partition": "gpu", "account": "me", "qos": "long", "reservation": "course", "constraint": "fast"},
        memory_gigabytes=7,
        cpus_per_task=5,
        network_interface="hsn0",
        nccl_interface="ib0",
        login_shell=True,
        setup=["module load python"],
        srun_args=["--mpi=none"],
        sbatch={"exclusive": True},
        log_folder=str(tmp_path / "scratch"),
    )
    options = ("partition=gpu", "account=me", "qos=long", "reservation=course", "constraint=fast", "mem=7GB")
    for line in (*options, "exclusive", f"output={tmp_path}/scratch/%A_%a_0_log.out"):
        assert f"#SBATCH --{line}\n" in craft
    assert "export GLOO_SOCKET_IFNAME=hsn0 NCCL_SOCKET_IFNAME=ib0\n" in craft
    assert "module load python\n" in craft
    assert "\n#!/bin/bash -l\n" in craft
    assert re.search(r"^srun .* --cpus-per-task=5 --mpi=none ", craft, re.M)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"image": "a.sif", "binds": ["/data"]}, r"apptainer exec --bind \S*,/data a.sif python3 -u -m submitit"),
        (
            {"image": "me/a:1", "runtime": "pyxis", "python": "python", "binds": ["/data", "/a:/b"]},
            r"--container-image=me/a:1 --container-mounts=\S*,/data:/data,/a:/b python -u -m submitit",
        ),
    ],
)
def test_ranks_run_in_a_container(tmp_path, container, words):
    craft, _ = drafted(tmp_path, container=container)
    assert re.search(rf"^srun .*{words}", craft, re.M)


def test_what_a_dry_run_prints_is_submitted_byte_for_byte(tmp_path, sbatch):
    _, craft, _, victim = scripts([CRAFT, VICTIM], submission(tmp_path))
    assert not (tmp_path / "study").exists()
    submit_batches([CRAFT, VICTIM], submission(tmp_path), lambda batch, job: None)
    assert (tmp_path / "script-1").read_text() == craft
    assert (tmp_path / "script-2").read_text() == victim
    assert sbatch()[1].startswith("sbatch --dependency=aftercorr:1 ")


def test_every_array_is_noted_at_once(tmp_path, sbatch):
    noted = []
    lines = submit_batches([CRAFT, VICTIM], submission(tmp_path), lambda batch, job: noted.append((batch.name, job)))
    assert noted == [("craft", "1"), ("victim", "2")]
    assert lines == ["craft: job 1, 2 task(s), at most 2 at once", "victim: job 2, 1 task(s), at most 1 at once"]
    assert len(list((tmp_path / "study" / "logs").glob("*_submitted.pkl"))) == 3


def test_where_one_array_is_refused_none_stays_in_the_queue(tmp_path, sbatch):
    refused = submission(tmp_path, victim={"sbatch": {"comment": "REFUSED"}})
    with pytest.raises(UsageError, match=r"sbatch refused victim: .*invalid; nothing is left in the queue"):
        submit_batches([CRAFT, VICTIM], refused, lambda batch, job: None)
    assert sbatch()[-1] == "scancel 1"


def test_nobody_else_reads_what_jobs_were_told(tmp_path, sbatch):
    submit_batches([CRAFT], submission(tmp_path), lambda batch, job: None)
    for folder in ("study", "study/logs"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_jobs_keep_their_copy_of_the_code_until_another_is_asked_for(tmp_path):
    first = code_copy(tmp_path, refresh=False)
    make_copy(first)
    assert is_current(first)
    subprocess.run(["touch", str(first / "hpcule" / "new.py")], check=True)
    assert not is_current(first)
    assert code_copy(tmp_path, refresh=False) == first
    second = code_copy(tmp_path, refresh=True)
    make_copy(second)
    assert is_current(second)
    assert not is_current(first)
    assert code_copy(tmp_path, refresh=False) == second == Path(f"{first}-2")
