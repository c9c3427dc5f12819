"""What a rank's collectives have taken so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Spent:
    """Counted by every collective of a world and of the groups that it was split into."""

    seconds: float = 0.0
    """Inside collectives: sending, and waiting for other ranks."""
    calls: int = 0
    bytes: int = 0
    """Of the tensors that were summed, compared or copied; objects that ranks gather are not counted."""

    def note(self, seconds: float, size: int) -> None:
        """Add one collective on a tensor of `size` bytes."""
        self.seconds += seconds
        self.calls += 1
        self.bytes += size

    def copy(self) -> Spent:
        """As it stands now."""
        return Spent(self.seconds, self.calls, self.bytes)

    def add(self, later: Spent, earlier: Spent) -> None:
        """Add what was spent between two copies."""
        self.seconds += later.seconds - earlier.seconds
        self.calls += later.calls - earlier.calls
        self.bytes += later.bytes - earlier.bytes
