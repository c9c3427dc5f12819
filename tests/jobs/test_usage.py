"""What jobs used, from the texts that sacct prints."""

import pytest

from hpcule.config.errors import UsageError
from hpcule.jobs.usage import bytes_of, seconds_of, usage, usage_lines

# JobID|ElapsedRaw|TimelimitRaw|AllocCPUS|TotalCPU|ReqTRES|NTasks|MaxRSS|TRESUsageInAve
LINES = """\
12_0|1800|60|16|04:00:00|billing=16,cpu=16,gres/gpu=4,mem=32G,node=2|||
12_0.batch|1800||8|00:00.020||1|12.16M|cpu=00:00:00,mem=12.16M
12_0.0|1800||16|04:00:00||4|1G|cpu=01:00:00,gres/gpumem=900M,gres/gpuutil=10,mem=1G
12_1|1800|60|16|04:00:00|billing=16,cpu=16,gres/gpu=4,mem=32G,node=2|||
12_1.0|1800||16|04:00:00||4|3072M|cpu=01:00:00,gres/gpuutil=20,mem=1G
13_0|0|60|0|00:00:00|cpu=1,mem=2000M,node=1|||
14_0|600|UNLIMITED|1|09:30.500|cpu=1,node=1|||
14_0.0|600||1|09:30.500||1||
"""


@pytest.fixture
def sacct(tmp_path, monkeypatch):
    """Gives sacct something to say, or an error."""

    def says(text, code=0):
        (tmp_path / "text").write_text(text)
        stream = ">&2" if code else ""
        (tmp_path / "sacct").write_text(f"#!/bin/sh\ncat {tmp_path}/text {stream}\nexit {code}\n")
        (tmp_path / "sacct").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return says


def test_used_shares_of_what_was_asked_for(sacct):
    sacct(LINES)
    found = usage({"12": "craft", "13": "victim", "14": "report"})
    assert {stage: used.jobs for stage, used in found.items()} == {"craft": 2, "report": 1}
    assert found["craft"].shares() == {"time": 0.5, "cores": 0.5, "GPUs": 0.15, "memory": 0.25}
    assert found["report"].shares() == pytest.approx(
        {"time": None, "cores": 0.95, "GPUs": None, "memory": None}, abs=0.01
    )


def test_little_use_is_pointed_out(sacct):
    sacct(LINES)
    lines = usage_lines(usage({"12": "craft", "13": "victim", "14": "report"}))
    assert [line.split() for line in lines[1:3]] == [
        ["craft", "2", "50", "%", "50", "%", "15", "%", "25", "%"],
        ["report", "1", "—", "95", "%", "—", "—"],
    ]
    assert lines[3:] == [
        "craft: 15 % of the GPUs used: put more victims into a job (`victims_per_job`), or raise the batch"
    ]


def test_without_accounts_it_says_so(sacct):
    sacct("Slurm accounting storage is disabled", code=1)
    with pytest.raises(UsageError, match="Slurm accounting storage is disabled"):
        usage({"12": "craft"})


@pytest.mark.parametrize(("time", "seconds"), [("00:08.633", 8.633), ("01:02:03", 3723), ("1-00:00:10", 86410)])
def test_times(time, seconds):
    assert seconds_of(time) == pytest.approx(seconds)


@pytest.mark.parametrize(("size", "count"), [("318.5M", 318.5 * 2**20), ("2G", 2**31), ("0", 0), ("", 0)])
def test_sizes(size, count):
    assert bytes_of(size) == count
