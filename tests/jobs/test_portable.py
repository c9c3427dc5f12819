"""Jobs for LSF, PBS and Flux: their scripts, and what becomes of them in stand-ins for the commands of each system."""

import dataclasses
import os
import subprocess
import time

import numpy as np
import pytest
import schedulers

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.portable import (
    cancel_portable,
    check_portable,
    portable_scripts,
    portable_states,
    submit_portable,
)
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.submit import CommandBatch, Submission
from hpcule.jobs.systems import cancel_records, scripts_of, states_of, submit_to_site

pytest.importorskip("psij", reason="needs the extra 'psij'")

CRAFT = CommandBatch("craft", "craft", [["study", "item", "DIR", "a"], ["study", "item", "DIR", "b"]])
VICTIM = CommandBatch("victim", "victim", [["study", "item", "DIR", "c"]], "afterok:{craft}_1", [["c"]])
REPORT = CommandBatch("report", "report", [["study", "report", "DIR"]], "afterany:{craft}:{victim}:7.server_0")
NAMES = {
    "lsf": ["101", "102", "103"],
    "pbs": ["101.server", "102.server", "103.server"],
    "flux": ["f101", "f102", "f103"],
}

RUNNING = {"lsf": "RUN", "pbs": "R", "flux": "RUN|"}
ENDED = {"lsf": "EXIT", "pbs": "F", "flux": "INACTIVE|COMPLETED"}
SYSTEMS = tuple(NAMES)


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """The folder of the batch systems' scripts and states."""
    folder = tmp_path / "scheduler"
    schedulers.install(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def submission(folder, system, **settings):
    site = build_config(SiteConfig, {"system": system, "nodes": 2, "tasks_per_node": 4, **settings})
    return Submission(site, folder / "study")


def submitted(folder, system, batches=(CRAFT, VICTIM, REPORT), **settings):
    noted = []
    own = submission(folder, system, **settings)
    lines = submit_portable(batches, own, lambda batch, job: noted.append((batch.name, batch.items, job)))
    return noted, lines, own.logs


def first_script(folder, system, **settings):
    _, text, *_ = portable_scripts([CRAFT], submission(folder, system, **settings))
    return text


DIRECTIVES = {
    "lsf": """#BSUB -J hpcule-craft-0
#BSUB -W 90
#BSUB -nnodes 2
#BSUB -M 7GB
#BSUB -q gpu
#BSUB -P me
#BSUB -o LOGS/hpcule-craft-0-%J.out
#BSUB -Q "75"
""",
    "pbs": """#PBS -N hpcule-craft-0
#PBS -l select=2:ncpus=20:mpiprocs=4:ngpus=4:mem=7gb
#PBS -l place=scatter
#PBS -l walltime=01:30:00
#PBS -q gpu
#PBS -A me
#PBS -j oe -o LOGS/
""",
    "flux": """# flux: --job-name=hpcule-craft-0
# flux: --nodes=2 --nslots=8 --cores-per-slot=5
# flux: --gpus-per-slot=1
# flux: --time-limit=90m
# flux: --queue=gpu
# flux: --bank=me
# flux: --output=LOGS/hpcule-craft-0-{{id}}.out
""",
}
STARTS = {
    "lsf": "jsrun --nrs 8 --rs_per_host 4 --tasks_per_rs 1 --cpu_per_rs 5 --gpu_per_rs 1",
    "pbs": "mpiexec -n 8 --ppn 4",
    "flux": "flux run --nodes=2 --ntasks=8 --cores-per-task=5 --gpus-per-task=1",
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_script_asks_for_what_the_site_says_and_starts_the_ranks(tmp_path, system):
    memory = {} if system == "flux" else {"memory_gigabytes": 7}
    text = first_script(
        tmp_path,
        system,
        **{"partition": "gpu", "account": "me", "minutes": 90, "cpus_per_task": 5, "gpus_per_node": 4, **memory},
        options=["-x y"],
        setup=["module load python"],
        network_interface="hsn0",
        login_shell=True,
    )
    head, _, body = text.partition("\n\n")
    logs = str(tmp_path / "study" / "logs")
    sentinel = DIRECTIVES[system].split(" -")[0]
    assert head.replace(logs, "LOGS") == f"#!/bin/bash -l\n{DIRECTIVES[system]}{sentinel} -x y"
    lines = body.splitlines()
    assert "export GLOO_SOCKET_IFNAME=hsn0 NCCL_SOCKET_IFNAME=hsn0" in lines
    assert "module load python" in lines
    assert f"export HPCULE_STOP_AT=$(( $(date +%s) + {90 * 60 - 90} ))" in lines
    assert f"hpcule.jobs.portable_command {system} {logs}/hpcule-craft-0.sh {STARTS[system]} " in lines[-1]
    assert lines[-1].endswith(" -u -m hpcule study item DIR a")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_lsf_without_jsrun_counts_cores(tmp_path):
    text = first_script(tmp_path, "lsf", start="mpiexec -n {ranks}", gpus_per_node=4, cpus_per_task=5)
    assert '#BSUB -n 40 -R "span[ptile=20]"\n#BSUB -gpu "num=4"\n' in text
    assert " mpiexec -n 8 " in text


def test_ranks_run_in_a_container(tmp_path):
    text = first_script(tmp_path, "pbs", container={"image": "a.sif", "binds": ["/data"]})
    assert "mpiexec -n 8 --ppn 4 apptainer exec --bind " in text
    assert ",/data a.sif python3 -u -m hpcule study" in text


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("lsf", ['-w "done(102)"', '-w "ended(101) && ended(102) && ended(103) && ended(7.server)"']),
        ("pbs", ["-W depend=afterok:102.server", "-W depend=afterany:101.server:102.server:103.server:7.server"]),
        ("flux", ["--dependency=afterok:f102", "--dependency=afterany:f103"]),
    ],
)
def test_jobs_wait_for_those_before_them(tmp_path, scheduler, system, lines):
    submitted(tmp_path, system)
    for line, number in zip(lines, (103, 104), strict=True):
        assert f" {line}\n" in (scheduler / f"script-{number}").read_text()


def test_task_n_of_a_corresponding_batch_waits_for_task_n(tmp_path, scheduler):
    both = dataclasses.replace(VICTIM, commands=CRAFT.commands, items=[["c"], ["d"]], after="aftercorr:{craft}")
    noted, _, _ = submitted(tmp_path, "pbs", [CRAFT, both])
    assert [items for _, items, _ in noted] == [(), (), [["c"]], [["d"]]]
    for number in (1, 2):
        text = (scheduler / f"script-{102 + number}").read_text()
        assert f"#PBS -W depend=afterok:10{number}.server\n" in text


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_dry_run_prints_is_submitted_byte_for_byte(tmp_path, scheduler, system):
    own = submission(tmp_path, system)
    _, first, _, second = scripts_of([CRAFT], own)
    assert not (tmp_path / "study").exists()
    noted = []
    submit_to_site([CRAFT], own, lambda batch, job: noted.append(job))
    assert noted == NAMES[system][:2]
    assert [(scheduler / f"script-{number}").read_text() for number in (101, 102)] == [first, second]
    assert (own.logs / "hpcule-craft-1.sh").read_text() == second
    for path in (own.folder, own.logs, own.logs / "hpcule-craft-1.sh"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_states_are_followed_until_a_job_is_forgotten(tmp_path, scheduler, system):
    noted, lines, logs = submitted(tmp_path, system, [CRAFT, VICTIM])
    names = [job for _, _, job in noted]
    assert names == NAMES[system]
    assert lines[0] == f"craft: 2 job(s) of {system}, {names[0]} to {names[1]}"
    jobs = dict.fromkeys(names, logs)
    assert portable_states(system, jobs) == dict.fromkeys(names, "PENDING")
    (scheduler / "state-101").write_text(RUNNING[system])
    (scheduler / "state-102").write_text(ENDED[system])
    assert portable_states(system, jobs) == {names[0]: "RUNNING", names[2]: "PENDING"}
    records = [{"job": name, "logs": str(logs), "system": system} for name in names]
    assert states_of(records) == {f"{names[0]}_0": "RUNNING", f"{names[2]}_0": "PENDING"}
    assert portable_states(system, {}) == {}


@pytest.mark.parametrize("system", ["lsf", "pbs"])
def test_jobs_that_a_system_no_longer_knows_have_ended(tmp_path, scheduler, system):
    noted, _, logs = submitted(tmp_path, system, [CRAFT])
    names = [job for _, _, job in noted]
    (scheduler / "state-101").unlink()
    assert portable_states(system, dict.fromkeys(names, logs)) == {names[1]: "PENDING"}
    (scheduler / "state-102").unlink()
    assert portable_states(system, dict.fromkeys(names, logs)) == {}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_cancelled_job_is_one_of_those_no_more(tmp_path, scheduler, system):
    noted, _, logs = submitted(tmp_path, system, [CRAFT])
    records = [{"job": job, "logs": str(logs), "system": system} for _, _, job in noted]
    cancel_records(records[:1])
    assert list(states_of(records)) == [f"{NAMES[system][1]}_0"]
    assert len((scheduler / "cancelled").read_text().splitlines()) == 1


def test_a_job_that_has_ended_meanwhile_need_not_be_cancelled(tmp_path, scheduler):
    noted, _, logs = submitted(tmp_path, "pbs", [CRAFT])
    (scheduler / "state-101").write_text("F")
    cancel_portable("pbs", {noted[0][2]: logs})
    assert not (scheduler / "cancelled").exists()


@pytest.mark.parametrize("system", SYSTEMS)
def test_where_one_job_is_refused_none_stays_in_the_queue(tmp_path, scheduler, system):
    refused = dataclasses.replace(VICTIM, commands=[["REFUSED"]])
    with pytest.raises(
        UsageError, match=f"{system} refused hpcule-victim-0: no such queue; nothing is left in the queue"
    ):
        submitted(tmp_path, system, [CRAFT, refused])
    assert len((scheduler / "cancelled").read_text().splitlines()) == 2


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_that_is_not_here_is_named(tmp_path, monkeypatch, system):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"there is no \w+ on this machine: submit from a login node"):
        check_portable(submission(tmp_path, system).site)
    with pytest.raises(UsageError, match=f"{system} does not answer: "):
        portable_states(system, {"1": tmp_path})


START = """#!/bin/bash
# Stands in for a launcher and its ranks: saves, and is stopped by the time that the script has set, as ranks are.
echo "$@" >> {folder}/started
if [ -f {folder}/code ]; then exit $(cat {folder}/code); fi
[ -f {folder}/saves ] && touch "$HPCULE_PROGRESS"
trap 'exit 75' TERM USR2
while [ $(date +%s) -lt $HPCULE_STOP_AT ]; do sleep 0.05; done
exit 75
"""


@pytest.fixture
def job(tmp_path, scheduler):
    """Runs the script of the first job as its system would; returns its process."""
    start = scheduler / "start"
    start.write_text(START.format(folder=scheduler))
    start.chmod(0o755)

    def begin(system, number=101, signal_seconds=59):
        if not (scheduler / "script-101").exists():
            batch = dataclasses.replace(CRAFT, commands=CRAFT.commands[:1])
            submitted(tmp_path, system, [batch], start=str(start), minutes=1, signal_seconds=signal_seconds)
        environ = {**os.environ, "PBS_JOBID": f"{number}.server", "LSB_JOBID": str(number)}
        command = ["bash", str(scheduler / f"script-{number}")]
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)

    return begin


def ended(process):
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_job_whose_time_was_short_goes_on_in_lsf_under_its_own_name(scheduler, job):
    (scheduler / "saves").touch()
    for _ in range(3):
        assert ended(job("lsf")) == (
            75,
            "hpcule: hpcule-craft-0 was stopped (time limit): requeued, to continue with what is saved\n",
        )
    assert not (scheduler / "script-102").exists()


@pytest.mark.parametrize("system", ["pbs", "flux"])
def test_a_job_whose_time_was_short_submits_itself_again_and_is_followed(tmp_path, scheduler, job, system):
    (scheduler / "saves").touch()
    code, said = ended(job(system))
    assert code == 1
    assert f"job {NAMES[system][1]} continues with what is saved; jobs that wait for this one do not" in said
    assert (scheduler / "script-102").read_text() == (scheduler / "script-101").read_text()
    (scheduler / "state-101").write_text(ENDED[system])
    jobs = {NAMES[system][0]: tmp_path / "study" / "logs"}
    assert portable_states(system, jobs) == {NAMES[system][0]: "PENDING"}
    cancel_portable(system, jobs)
    assert NAMES[system][1] in (scheduler / "cancelled").read_text()


@pytest.mark.parametrize("system", ["lsf", "pbs"])
def test_a_job_that_saves_nothing_twice_is_longer_than_its_limit(scheduler, job, system):
    first, _ = ended(job(system))
    assert first == (75 if system == "lsf" else 1)
    code, said = ended(job(system))
    assert code == 1
    assert "hpcule-craft-0 has saved nothing new within its time limit and is not requeued" in said


def test_what_was_cancelled_stays_so(scheduler, job):
    (scheduler / "saves").touch()
    process = job("lsf", signal_seconds=1)
    deadline = time.monotonic() + 60
    while not (scheduler / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    code, said = ended(process)
    assert code == 1, "LSF requeues on 75"
    assert "hpcule-craft-0 was stopped by somebody: submit it again to continue" in said


@pytest.mark.slow
def test_a_craft_saves_in_time_and_is_requeued(tmp_path, scheduler):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "toys.npz", images=rng.integers(0, 256, (96, 8, 8, 3), np.uint8), labels=np.arange(96) % 3)
    words = ["craft", "pil", "--data", str(tmp_path / "toys.npz"), "--out", str(tmp_path / "store"), "--resume"]
    batch = CommandBatch("craft", "craft", [[*words, "--set", "method.epochs=10000000"]])
    submitted(tmp_path, "lsf", [batch], start="env", minutes=1, signal_seconds=15)
    done = subprocess.run(["bash", scheduler / "script-101"], stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGUSR2, saved" in done.stderr
    assert "hpcule-craft-0 was stopped (time limit): requeued" in done.stderr
    assert list((tmp_path / "store" / "run").glob("checkpoint-*/COMMIT"))
    assert (tmp_path / "study" / "logs" / "hpcule-craft-0_attempts" / "0-progress").exists()


@pytest.mark.parametrize(
    ("code", "result", "says"),
    [(0, 0, ""), (3, 1, "hpcule-craft-0 ended with 3; its own error is in this job's log"), (69, 75, "stopped (lost)")],
)
def test_other_ends_of_a_job(scheduler, job, code, result, says):
    (scheduler / "code").write_text(str(code))
    found, said = ended(job("lsf", signal_seconds=1))
    assert found == result
    assert says in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"system": "pbs", "qos": "long"}, "qos: has no effect with system=pbs, only with slurm"),
        ({"system": "lsf", "sbatch": {"exclusive": True}}, "sbatch: has no effect with system=lsf"),
        ({"system": "flux", "memory_gigabytes": 3}, "memory_gigabytes: has no effect with system=flux"),
        ({"start": "mpiexec"}, "start: has no effect with system=slurm, only with lsf, pbs, flux"),
        ({"system": "pbs", "container": {"image": "a", "runtime": "pyxis"}}, "container.runtime=pyxis: has no effect"),
        ({"system": "sge"}, "system"),
    ],
)
def test_settings_that_a_system_does_not_have_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        build_config(SiteConfig, settings)


def test_an_unknown_field_of_start_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"start: 'mpiexec -n \{ntasks\}' may hold the fields \{ranks\}, \{nodes\}"):
        first_script(tmp_path, "pbs", start="mpiexec -n {ntasks}")
