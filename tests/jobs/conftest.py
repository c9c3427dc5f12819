"""Programs that print texts of larger clusters stand in for Slurm's."""

import pytest

PARTITIONS = (
    "PartitionName=cpu AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=7-00:00:00 Nodes=c[1-40] State=UP "
    "QoS=N/A TotalCPUs=2560 TotalNodes=40\n"
    "PartitionName=gpu AllowGroups=ALL Default=NO MaxNodes=4 MaxTime=12:00:00 Nodes=g[1-8] OverSubscribe=EXCLUSIVE "
    "QoS=few State=UP TotalNodes=8\n"
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
