"""Copies of samples to a device that run next to its computations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Upload:
    """Samples on their way to a device.

    Attributes:
        samples: on the device; valid after `arrived`.
        copied: marks the end of the copy in its stream; None: nothing had to be copied.
    """

    samples: Tensor
    copied: torch.cuda.Event | None = None

    def arrived(self) -> Tensor:
        """The samples, for whatever the calling thread starts on the device from now on; nobody waits on the host."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.samples.device)
            stream.wait_event(self.copied)
            # Memory of the copying stream: not to be used again before this one has read it.
            self.samples.record_stream(stream)
        return self.samples


class Uploads:
    """Starts copies to one device, in a stream of their own and from pinned memory; on a CPU there is nothing to copy.

    Args:
        device: where samples go.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def begin(self, samples: Tensor) -> Upload:
        """Start to copy samples that are in the host's memory."""
        if self.device.type != "cuda":
            return Upload(samples)
        with torch.cuda.stream(self._stream):
            on_device = samples.pin_memory().to(self.device, non_blocking=True)
        return Upload(on_device, self._stream.record_event())
