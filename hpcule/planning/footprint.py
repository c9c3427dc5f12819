"""Bytes that a craft needs in memory and on disk."""

from __future__ import annotations

from hpcule.craft.config import CraftConfig
from hpcule.craft.table import find
from hpcule.craft.work import Extent, Work


def resident_bytes(config: CraftConfig, extent: Extent) -> float:
    """What a worker keeps of its own samples: uint8, or int32 for 16-bit ones, up to the setting's limit."""
    size = extent.own_samples * extent.values * (1 if extent.levels == 255 else 4)
    return min(size, config.world.resident_mebibytes * 2**20)


def grown_bytes(config: CraftConfig, extent: Extent, work: Work) -> float:
    """Memory of the largest worker that grows with the data: own samples, all labels, and what the method holds."""
    labels = 8 * extent.samples if extent.classes else 0
    return resident_bytes(config, extent) + labels + work.memory


def store_bytes(config: CraftConfig, extent: Extent, work: Work) -> int:
    """The store without compression: deltas in the smallest integers that hold the budget; ids, and labels where the
    method needs them, and groups where deltas are shared, of 8 bytes each."""
    method = find(config.method.name)
    item = method.budget(config.method, extent.shape, extent.levels).dtype(extent.levels).itemsize
    labelled = method.needs_labels(config.method)
    numbers = 1 + int(labelled) + int(work.shared > 0)
    return 8 * numbers * extent.samples + item * extent.values * (work.shared or extent.samples)
