"""Real processes under real limits; what they lack is said in one line before anything is waited for."""

import dataclasses
import os
import resource
import socket
import subprocess
import sys

import pytest

from hpcule.config.errors import UsageError
from hpcule.world.launcher import Place, job_port
from hpcule.world.preconditions import refuse_shared_devices, require_address

RANK = Place("srun", rank=0, size=2, address="127.0.0.1", port=20000)


def limited(soft, hard, code):
    """What a process says whose numbers of open files are limited."""

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, timeout=60)


REQUIRE = """
import resource
from hpcule.world.preconditions import require_descriptors
require_descriptors({size}, "node7")
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "size", "left"),
    [(64, 64, 2, 64), (64, 256, 2, 64), (64, 256, 64, 256), (256, 256, 64, 256)],
)
def test_the_limit_of_open_files_is_raised_where_ranks_need_it(soft, hard, size, left):
    done = limited(soft, hard, REQUIRE.format(size=size))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == left


@pytest.mark.parametrize("size", [64, 4096])
def test_a_limit_of_open_files_that_cannot_be_raised_is_named(size):
    done = limited(64, 64, REQUIRE.format(size=size))
    assert f"node7: the limit of 64 open files (ulimit -n) is too low for a run of {size} ranks" in done.stderr
    assert "raise it with `ulimit -n" in done.stderr


def test_a_host_that_nobody_knows_is_named_with_who_named_it():
    with pytest.raises(
        UsageError, match=r"cannot resolve no-such-host\.invalid, by srun the host of rank 0 \(.+\): let"
    ):
        require_address(dataclasses.replace(RANK, address="no-such-host.invalid"))


def test_rank_0_is_on_the_machine_that_the_launcher_says():
    for address in ("127.0.0.1", "localhost", socket.gethostname()):
        require_address(dataclasses.replace(RANK, address=address))
    elsewhere = dataclasses.replace(RANK, address="192.0.2.1")
    with pytest.raises(UsageError, match=r"rank 0 runs on .+, but by srun on 192\.0\.2\.1, which is another machine"):
        require_address(elsewhere)
    require_address(dataclasses.replace(elsewhere, rank=1))
    require_address(dataclasses.replace(elsewhere, launcher="torchrun"))


def test_two_ranks_on_one_gpu_are_refused():
    refuse_shared_devices([("n1", "GPU-1"), ("n1", "GPU-2"), ("n2", "GPU-3")])
    with pytest.raises(
        UsageError, match="ranks 1 and 3 on n1 both compute on GPU GPU-2: start no more ranks on a node"
    ):
        refuse_shared_devices([("n1", "GPU-1"), ("n1", "GPU-2"), ("n2", "GPU-3"), ("n1", "GPU-2")])


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "29999"}
SRUN = {
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "127.0.0.1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environ", "message"),
    [
        ([], {**TORCHRUN, "MASTER_ADDR": "no-such-host.invalid"}, "cannot resolve no-such-host.invalid, by torchrun"),
        ([], {**SRUN, "SLURM_JOB_NODELIST": "no-such-host"}, "cannot resolve no-such-host, by srun"),
        ([], {**SRUN, "GLOO_SOCKET_IFNAME": "hsn9"}, "GLOO_SOCKET_IFNAME=hsn9:"),
        (["--workers", "64"], {}, "the limit of 64 open files (ulimit -n) is too low for a run of 64 ranks"),
        ([], SRUN, f"cannot listen at 127.0.0.1:{job_port('1234', '0', '0')}, where another program does"),
    ],
)
def test_what_ranks_lack_is_named_in_one_line_before_they_wait_for_each_other(words, environ, message):
    """Ranks would wait for 300 seconds; the time-out of the process leaves room for a busy machine alone."""
    with socket.create_server(("", job_port("1234", "0", "0"))):
        done = subprocess.run(
            ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", sys.executable, "-m", "hpcule", "doctor", *words],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("hpcule: ")]
    assert len(said) == 1, done.stderr
    assert message in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
@pytest.mark.slow
def test_workers_that_see_the_same_gpu_are_refused():
    done = subprocess.run(
        [sys.executable, "-m", "hpcule", "doctor", "--workers", "2", "--set", "world.device=cuda"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "ranks 0 and 1 on " in done.stderr
    assert "both compute on GPU " in done.stderr
