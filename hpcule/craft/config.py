"""The settings of a craft run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig, Preset, StoreConfig, WorldConfig
from hpcule.data.opening import Opening


@dataclass(frozen=True, kw_only=True)
class CraftConfig(Opening):
    """One craft run: one file of this decides the result, whoever runs it and on however many workers."""

    data: str
    """DATA: a path or a name, with an optional `:SPLIT`."""
    method: MethodConfig
    preset: Preset = "paper"
    """Where the method's defaults come from; results of small and smoke are marked `reduced`."""
    seed: int | None = setting(None, at_least=0, below=2**63, words="0 to 2^63 - 1")
    """None: 0, but for methods whose seed is their secret: these draw it from the operating system, or take it from the
    store that is resumed."""
    deterministic: bool = False
    """The same bytes for every number of workers, launcher, kill and resume."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast; auto takes it where the device has fast instructions for it."""
    budget_unit: Literal["window", "stored"] = "window"
    """What a level of the budget is in DICOM and NIfTI: 1/255 of the display window, or one stored grey level."""
    store: StoreConfig = field(default_factory=StoreConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
