import json
import os
import stat
import time
from pathlib import Path

import pytest
import torch

from hpcule.config.errors import StoreError
from hpcule.craft.journal import Clock, Journal, counted_batches
from hpcule.craft.method import Step

PARTS = ("compute", "wait", "communication", "storage")


def uneven(world):
    """Rank 1 computes longer, so that rank 0 waits for it in the sum."""
    clock = Clock(world)
    clock.measure("read", lambda: time.sleep(0.02))
    clock.measure("craft", lambda: time.sleep(0.05 + 0.1 * world.rank))
    clock.measure("craft", lambda: world.add(torch.ones(4)))
    clock.measure("finish", lambda: time.sleep(0.02))
    return clock.summary(), clock.sections["craft"].spent.calls, clock.sections["craft"].spent.bytes


def test_the_parts_of_a_run_add_up_and_waiting_is_told_from_communication(pool):
    (summary, calls, size), (other, *_) = pool.run(uneven)
    assert summary == other
    assert (calls, size) == (1, 16)
    assert sum(summary[f"{part}_seconds"] for part in PARTS) == pytest.approx(summary["run_seconds"], abs=0.004)
    # Rank 0 waits 0.1 s, so the mean rank 0.05 s; sleeping is never shorter than asked for.
    assert summary["wait_seconds"] >= 0.04
    assert summary["storage_seconds"] >= 0.04
    assert summary["compute_seconds"] >= 0.09
    assert summary["craft_seconds"] >= 0.15


def test_one_rank_neither_waits_nor_communicates(alone):
    summary, calls, _ = uneven(alone)
    assert (summary["wait_seconds"], summary["communication_seconds"], calls) == (0, 0, 0)


def test_each_line_tells_what_the_method_has_taken_so_far(alone, tmp_path):
    (tmp_path / "run").mkdir()
    clock = Clock(alone)
    journal = Journal(tmp_path, alone, clock.sections["craft"])
    for number in (1, 2):
        clock.measure("craft", lambda: time.sleep(0.01))
        journal.note(Step("surrogate", number, 2, {"loss": 1.5}))
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log-00000.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["done"], line["loss"]) for line in lines] == [
        ("surrogate", 1, 1.5),
        ("surrogate", 2, 1.5),
    ]
    assert lines[1]["craft_seconds"] >= lines[0]["craft_seconds"] + 0.01
    assert lines[1]["collectives"] == 0


def test_a_full_disk_is_told_in_one_line(alone, tmp_path):
    (tmp_path / "run").mkdir()
    try:
        os.mknod(tmp_path / "run" / "log-00000.jsonl", stat.S_IFCHR | 0o600, Path("/dev/full").stat().st_rdev)
    except PermissionError:
        pytest.skip("only root makes devices")
    journal = Journal(tmp_path, alone, Clock(alone).sections["craft"])
    with pytest.raises(StoreError, match=r"disk full while writing log-00000\.jsonl"):
        journal.note(Step("surrogate", 1, 2))
    journal.close()


def test_batches_are_counted_once_whoever_has_noted_them(tmp_path):
    """Two ranks noted the first step, and a run that was cut off had noted the second one already."""
    (tmp_path / "run").mkdir()
    step = {"stage": "model", "done": 1, "total": 2, "batches": 1, "samples": 20, "batch": 20}
    lines = [
        [{**step, "step": 0}, {**step, "step": 1}],
        [{**step, "step": 0}, {**step, "step": 1, "samples": 7, "batch": 7}],
    ]
    for rank, noted in enumerate(lines):
        text = "\n".join(map(json.dumps, [*noted, {"stage": "noise", "done": 1}]))
        (tmp_path / "run" / f"log-{rank:05d}.jsonl").write_text(text)
    counted = counted_batches(tmp_path, 20)
    assert counted == {"batch_asked": 20, "batch_taken": 20, "steps": 2, "samples_seen": 27}


@pytest.mark.parametrize("line", ["", '{"step": 0, "stage": "model", "batches": []}', '{"step": []}'])
def test_a_journal_without_batches_is_no_reason_to_fail(tmp_path, line):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log-00000.jsonl").write_text(line)
    assert counted_batches(tmp_path, 8) == {
        "batch_asked": 8,
        "batch_taken": None,
        "steps": None,
        "samples_seen": None,
    }
