"""Limits of users and of jobs, as Slurm 22.05 prints those of partitions and of its accounts."""

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.limits import check_site, job_limits
from hpcule.jobs.site import SiteConfig

FEW = "5|12:00:00|cpu=64,mem=300G,node=2|cpu=300,gres/gpu=6|DenyOnLimit"
"""MaxSubmitJobsPU, MaxWall, MaxTRES, MaxTRESPU and Flags.

In the form in which sacctmgr of the local cluster prints them. `tests/cluster/test_study_queue.py` asks that one for
limits of jobs and nodes; limits of cores, memory, GPUs and time are tested here alone.
"""


@pytest.fixture
def accounting(slurm, tmp_path):
    """Gives sacctmgr the user's associations and qualities of service, by name."""

    def says(associations="", **qualities):
        cases = "".join(f"*name={name}*) echo '{line}' ;;\n" for name, line in qualities.items())
        script = f"case \"$*\" in\n*assoc*) printf '{associations}' ;;\n{cases}esac\n"
        (tmp_path / "sacctmgr").write_text(f"#!/bin/sh\n{script}")

    return says


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "gpu", "nodes": 5}, "craft jobs: nodes=5, but partition gpu has at most 4"),
        ({"partition": "gpu", "minutes": 721}, "craft jobs: minutes=721, but partition gpu has at most 720"),
        ({"gpus_per_node": 1}, "craft jobs: gpus_per_node=1, but partition cpu has at most 0"),
        ({"tasks_per_node": 9, "cpus_per_task": 8}, "tasks_per_node x cpus_per_task=72, but partition cpu"),
        ({"memory_gigabytes": 251}, "memory_gigabytes in megabytes=257024, but partition cpu has at most 256000"),
        ({"victim": {"partition": "gup"}}, "unknown partition 'gup': did you mean 'gpu'"),
        ({"report": {"partition": "old"}}, "partition old is not up"),
        ({"partition": "gpu", "constraint": "a10"}, "unknown feature of partition gpu 'a10': did you mean 'a100'"),
    ],
)
def test_jobs_that_could_never_start_are_refused(slurm, settings, message):
    with pytest.raises(UsageError, match=message):
        check_site(build_config(SiteConfig, settings))


def test_jobs_that_fit_are_not(slurm):
    check_site(
        build_config(SiteConfig, {"partition": "gpu", "nodes": 4, "gpus_per_node": 4, "constraint": "a100|v100"})
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 3}, "craft jobs: node=3, but the quality of service few of partition gpu allows at most 2"),
        ({"nodes": 2, "cpus_per_task": 48}, "craft jobs: cpu=96, but .* at most 64"),
        ({"nodes": 2, "gpus_per_node": 4}, "craft jobs: gres/gpu=8, but .* at most 6"),
        ({"nodes": 2, "memory_gigabytes": 200}, "craft jobs: mem=400G, but .* at most 300G"),
        ({"victim": {"minutes": 721}}, "victim jobs: minutes=721, but"),
    ],
)
def test_jobs_beyond_the_limits_of_a_partition_are_refused(accounting, settings, message):
    accounting(few=FEW, wide="100||||OverPartQOS")
    with pytest.raises(UsageError, match=message):
        check_site(build_config(SiteConfig, {"partition": "gpu", **settings}))
    check_site(build_config(SiteConfig, {"partition": "gpu", "nodes": 2}))


def test_another_quality_of_service_may_go_before_that_of_the_partition(accounting):
    accounting(few=FEW, wide="100||||OverPartQOS", narrow="100||||")
    for qos, is_refused in (("wide", False), ("narrow", True)):
        site = build_config(SiteConfig, {"partition": "gpu", "qos": qos, "nodes": 3})
        if is_refused:
            with pytest.raises(UsageError, match="node=3"):
                check_site(site)
        else:
            check_site(site)


@pytest.mark.parametrize(
    ("settings", "jobs"),
    [
        ({}, 100),
        ({"partition": "gpu"}, 5),
        ({"partition": "gpu", "qos": "short"}, 3),
        ({"victim": {"partition": "gpu"}}, 5),
        ({"report": {"partition": "gpu"}}, 100),
    ],
)
def test_the_number_of_jobs_that_a_partition_takes_counts(accounting, settings, jobs):
    accounting("a|100|\n", few=FEW, short="3||||")
    assert job_limits(build_config(SiteConfig, settings)).jobs == jobs


@pytest.mark.parametrize(
    ("associations", "jobs"),
    [
        ("", 9998),
        ("a|100|\n", 98),
        ("a|100|\nb|500|\n", 498),
        ("a|100|\nb||\n", 9998),
        ("a|1|\n", 0),
        ("a||short\n", 28),
        ("a|100|short\nb|20|long\n", 98),
        ("a|20|short\nb||long\n", 9998),
    ],
)
def test_limits_of_jobs(slurm, accounting, associations, jobs):
    slurm(
        scontrol="MaxArraySize            = 4001\nMaxJobCount             = 10000\n", squeue="12_3|PENDING\n9|RUNNING\n"
    )
    accounting(associations, short="30||||", long="||||")
    assert (job_limits(SiteConfig()).array, job_limits(SiteConfig()).jobs) == (4001, jobs)


def test_the_account_and_the_quality_of_service_of_the_site_count(slurm, accounting):
    slurm(scontrol="MaxJobCount = 10000\n")
    accounting("a|100|short\nb|20|long\n", short="30||||", wide="300||||")
    found = [
        job_limits(SiteConfig(account=account, qos=qos)).jobs
        for account, qos in (("a", None), ("b", None), ("a", "wide"), (None, "short"))
    ]
    assert found == [30, 20, 100, 30]


def test_without_accounting_there_is_no_limit_of_a_user(slurm, tmp_path):
    slurm(scontrol="MaxJobCount = 7\n")
    (tmp_path / "sacctmgr").write_text("#!/bin/sh\necho accounting storage is disabled >&2; exit 1\n")
    assert job_limits(SiteConfig()).jobs == 7
    (tmp_path / "sacctmgr").unlink()
    assert job_limits(SiteConfig()).jobs == 7
