"""What Slurm says, as it says it at other sites: programs that print texts of larger clusters stand in for it."""

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.proposal import proposed_site
from hpcule.jobs.scheduler import check_site, job_limits, minutes_of, partitions, queue
from hpcule.jobs.site import SiteConfig, load_site

PARTITIONS = (
    "PartitionName=cpu AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=7-00:00:00 Nodes=c[1-40] State=UP "
    "TotalCPUs=2560 TotalNodes=40\n"
    "PartitionName=gpu AllowGroups=ALL Default=NO MaxNodes=4 MaxTime=12:00:00 Nodes=g[1-8] OverSubscribe=EXCLUSIVE "
    "State=UP TotalNodes=8\n"
    "PartitionName=old AllowGroups=ALL Default=NO MaxNodes=4 MaxTime=UNLIMITED Nodes=o1 State=DOWN TotalNodes=1\n"
)
NODES = "cpu|64+|256000+|(null)|(null)\ngpu|48|515000|gpu:a100:4(S:0-1),shard:8|a100,ib\ngpu|48|515000|gpu:2|v100\n"
NODES += "old|8|1000|gpu|(null)\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Gives Slurm's commands something to say."""

    def says(**texts):
        for program, text in texts.items():
            (tmp_path / f"{program}.txt").write_text(text)
            (tmp_path / program).write_text(f"#!/bin/sh\ncat {tmp_path}/{program}.txt\n")
            (tmp_path / program).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    says(scontrol=PARTITIONS, sinfo=NODES, sbatch="", squeue="", sacctmgr="")
    return says


def test_partitions_are_read(slurm):
    cpu, gpu, old = partitions()
    assert (cpu.is_default, cpu.nodes, cpu.minutes, cpu.cpus, cpu.megabytes, cpu.gpus) == (
        True,
        40,
        10080,
        64,
        256000,
        0,
    )
    assert (gpu.nodes, gpu.minutes, gpu.gpus, gpu.features) == (4, 720, 4, {"a100", "ib", "v100"})
    assert (old.is_up, old.minutes, old.gpus) == (False, None, 1)
    assert [partition.is_exclusive for partition in partitions()] == [False, True, False]


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


def test_a_proposed_site_is_one_that_can_be_used(slurm, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(proposed_site(partitions(), ["mine"]))
    site = load_site(str(path))
    check_site(site)
    assert (site.partition, site.account, site.minutes) == ("gpu", "mine", 240)
    assert (site.tasks_per_node, site.gpus_per_node, site.cpus_per_task) == (4, 4, 12)
    assert site.resources("victim").ranks == site.dealt_victims == 4
    assert (site.resources("report").partition, site.resources("report").gpus_per_node) == ("cpu", 0)


def test_a_proposed_site_without_gpus_is_one_rank_a_node(slurm, tmp_path):
    path = tmp_path / "site.yaml"
    text = proposed_site([partition for partition in partitions() if partition.name == "cpu"], ["a", "b"])
    assert "# account: a or b" in text
    path.write_text(text)
    site = load_site(str(path))
    check_site(site)
    assert (site.partition, site.account, site.tasks_per_node, site.cpus_per_task) == ("cpu", None, 1, 64)


def test_without_a_partition_there_is_nothing_to_propose(slurm):
    with pytest.raises(UsageError, match="no partition of this cluster is up"):
        proposed_site([partition for partition in partitions() if partition.name == "old"], [])


@pytest.mark.parametrize(
    ("text", "minutes"), [("30:00", 30), ("12:00:00", 720), ("7-00:00:00", 10080), ("UNLIMITED", None)]
)
def test_time_limits(text, minutes):
    assert minutes_of(text) == minutes


def test_the_queue_holds_what_waits_or_runs(slurm):
    slurm(squeue="12_3|PENDING\n12_4|COMPLETED\n9|RUNNING\n")
    assert queue() == {"12_3": "PENDING", "9": "RUNNING"}


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
def test_limits_of_jobs(slurm, tmp_path, associations, jobs):
    slurm(
        scontrol="MaxArraySize            = 4001\nMaxJobCount             = 10000\n", squeue="12_3|PENDING\n9|RUNNING\n"
    )
    (tmp_path / "sacctmgr").write_text(
        f"""#!/bin/sh
        case "$*" in
            *assoc*) printf '{associations}' ;;
            *name=short*) echo 30 ;;
            *name=long*) echo ;;
        esac
        """
    )
    assert (job_limits(SiteConfig()).array, job_limits(SiteConfig()).jobs) == (4001, jobs)


def test_the_account_and_the_quality_of_service_of_the_site_count(slurm, tmp_path):
    slurm(scontrol="MaxJobCount = 10000\n")
    (tmp_path / "sacctmgr").write_text(
        """#!/bin/sh
        case "$*" in
            *assoc*) printf 'a|100|short\\nb|20|long\\n' ;;
            *name=short*) echo 30 ;;
            *name=wide*) echo 300 ;;
        esac
        """
    )
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
