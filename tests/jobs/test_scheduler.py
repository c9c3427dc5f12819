"""What Slurm says, as it says it at other sites: programs that print texts of larger clusters stand in for it."""

import pytest

from hpcule.config.errors import UsageError
from hpcule.jobs.limits import check_site
from hpcule.jobs.proposal import proposed_site
from hpcule.jobs.scheduler import minutes_of, partitions, queue
from hpcule.jobs.site import load_site


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
    assert (cpu.qos, gpu.qos) == ("", "few")
    assert [partition.is_exclusive for partition in partitions()] == [False, True, False]


def test_a_proposed_site_is_one_that_can_be_used(slurm, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(proposed_site(partitions(), ["mine"]))
    site = load_site(str(path))
    check_site(site)
    assert (site.partition, site.account, site.minutes) == ("gpu", "mine", 240)
    assert (site.tasks_per_node, site.gpus_per_node, site.cpus_per_task) == (4, 4, 12)
    assert site.resources("victim").ranks == site.dealt_victims() == 4
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
