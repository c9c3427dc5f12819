"""Results of a study's items, made up."""

from __future__ import annotations

from typing import Any

from hpcule.study.documents import CraftItemDocument, VictimItemDocument


def craft_item() -> CraftItemDocument:
    """What a finished craft has found."""
    scale: Any = {"first_step": 0, "last_step": 9, "noise_scale": 5.0, "low": 4.0, "high": None, "reason": ""}
    return {
        "read_seconds": 0.5,
        "craft_seconds": 0.5,
        "write_seconds": 0.5,
        "finish_seconds": 0.5,
        "run_seconds": 2.0,
        "compute_seconds": 0.5,
        "wait_seconds": 0.5,
        "communication_seconds": 0.5,
        "storage_seconds": 0.5,
        "kind": "craft",
        "title": "a",
        "settings": {"batch": 32, "learning_rate": 0.1},
        "store": "a",
        "method": "pil",
        "preset": "paper",
        "reduced": False,
        "samples": 100,
        "shards": 2,
        "workers": 1,
        "batch_asked": 32,
        "batch_taken": 32,
        "steps": 10,
        "samples_seen": 320,
        "peak_memory_mebibytes": 100,
        "already_complete": False,
        "loss_first": 2.0,
        "loss_last": 1.0,
        "loss_steps": 10,
        "steps_to_target": 5,
        "saturated": 0.5,
        "samples_to_target": None,
        "noise_scales": [scale],
    }


def victim_item(role: Any, craft: str | None, last: float) -> VictimItemDocument:
    """What a finished victim has found."""
    return {
        "kind": "victim",
        "role": role,
        "title": "a",
        "craft": craft,
        "chance": 0.1,
        "last": last,
        "best": last,
        "noise_scales": [],
        "seed": 0,
        "batch_asked": 64,
        "batch_taken": 64,
        "steps": 30,
        "samples_seen": 1900,
        "seconds": 1.0,
        "curve": [{"epoch": 1, "train": 0.9, "test": last}],
        "steps_to_target": None,
        "alignment": None,
        "uniformity": None,
    }
