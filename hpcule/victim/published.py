"""What a victim sees: samples as they are published, rounded to their grid, whole in memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.data.reader import to_tensor
from hpcule.data.source import Ids, Native, Samples, Source
from hpcule.data.tiles import Tiles
from hpcule.data.working import WorkingFile
from hpcule.publish.carry import Display, Publish, displayed, files_of, native_of
from hpcule.publish.collection import PublishNative
from hpcule.tasks.label import OneLabel
from hpcule.tasks.task import Task
from hpcule.victim.kinds import clean, clean_native

BLOCK, VALUES = 1024, 1 << 26
"""Samples read at a time, and their values."""


class Published:
    """Samples behind consecutive numbers 0..n-1, with what a task asks of them, as a victim's training or test set.

    Attributes:
        shape: (C, H, W) of every sample.
        task: what is learnt from them.
    """

    def __init__(
        self,
        source: Source,
        publish: Publish = clean,
        *,
        ids: Ids | None = None,
        resident: int,
        shape: tuple[int, int, int] | None = None,
        costly: bool = False,
        native: Callable[[], PublishNative | None] = lambda: None,
        task: Task | None = None,
    ) -> None:
        """Take `ids` of a source (all by default).

        Args:
            source: clean samples.
            publish: what becomes of them.
            ids: which; None: all.
            resident: bytes that may be kept in memory once they have been read; see `load`.
            shape: of what `publish` gives; None: that of the source.
            costly: whether `publish` costs much more than copying.
            native: gives what becomes of images at their own sizes, for `displayed`; None where that is not known.
            task: what is learnt; None: one label.

        Raises:
            DataError: the source has no labels, where one is learnt.
        """
        self.source, self.shape = source, shape or source.shape
        self.ids = np.arange(len(source), dtype=np.int64) if ids is None else ids
        self.task = task or OneLabel(source)
        self._publish, self._costly = publish, costly or source.decodes
        self._resident, self._native = resident, (lambda: clean_native) if publish is clean else native
        self._kept: tuple[Tensor, Tensor] | None = None
        self._placed: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._working: WorkingFile | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> Tensor:
        """The class number of each sample, int64 [n]."""
        assert self.source.labels is not None, "a step that goes by classes is for the task of one label"
        return torch.from_numpy(self.source.classes(self.ids))

    def through(self, change: Publish, shape: tuple[int, int, int] | None = None) -> Published:
        """The same set, each sample as `change` makes it of what was published, of another shape if one is given."""
        before = self._publish  # and not what this set has in memory

        def publish(ids: Ids, samples: Samples) -> Samples:
            return change(ids, before(ids, samples))

        shape = shape or self.shape
        return Published(
            self.source, publish, ids=self.ids, resident=self._resident, shape=shape, costly=True, task=self.task
        )

    @property
    def is_stored(self) -> bool:
        """Whether images have stored values, which attackers can display in a window of their own."""
        native = files_of(self.source).native(0)
        return native is not None and native.grid is not None

    def natives(self) -> Iterator[Native]:
        """The images of the samples, as they are published, at their own sizes.

        Raises:
            UsageError: it is not known how they are published.
        """
        files, source = files_of(self.source), self.source
        images = [image for image, *_ in source.by_image(self.ids)] if isinstance(source, Tiles) else self.ids.tolist()
        publish = self._publish_native
        return (publish(image, native_of(files, image)) for image in images)

    def displayed(self, display: Display) -> Published:
        """The same set in another display of the images as they are published, before they are resized or cut.

        Raises:
            UsageError: it is not known how they are published.
        """
        publish = displayed(self._publish_native, self.source, display)
        return Published(self.source, publish, ids=self.ids, resident=self._resident, costly=True, task=self.task)

    def originals(self, numbers: Ids) -> Published:
        """These of the samples, clean."""
        return Published(self.source, ids=self.ids[numbers], resident=self._resident, task=self.task)

    def load(self) -> None:
        """Read what fits into memory, which `take` does otherwise at its first call."""
        if self._kept is None and self._fits:
            parts = self._parts()
            samples = torch.cat([to_tensor(self._make(numbers)) for numbers in parts])
            self._kept = samples, torch.cat([self._targets(numbers) for numbers in parts])

    def take(self, numbers: Ids) -> tuple[Tensor, Tensor]:
        """Integer samples [n, C, H, W] and what is known of them [n, ...], class numbers where one label is learnt."""
        self.load()
        if self._kept is not None:
            samples, targets = (kept[torch.from_numpy(numbers)] for kept in self._kept)
            return samples, targets
        samples = to_tensor(self._beyond_memory().read(numbers) if self._costly else self._make(numbers))
        return samples, self._targets(numbers)

    def images(self, numbers: Ids, device: torch.device) -> tuple[Tensor, Tensor]:
        """Samples float32 [n, C, H, W] in [0, 1] and what is known of them, on a device; what is in memory is, as
        integers, on the device too from the first call on."""
        self.load()
        if self._kept is not None:
            if device not in self._placed:
                self._placed[device] = self._kept[0].to(device), self._kept[1].to(device)
            places = torch.from_numpy(numbers).to(device)
            samples, targets = (whole[places] for whole in self._placed[device])
        else:
            samples, targets = self.take(numbers)
        return samples.to(device).float().div_(self.source.levels), targets.to(device)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples [n, C, H, W] and what is known of them, in order, block by block."""
        for numbers in self._parts():
            yield self.take(numbers)

    def _parts(self) -> list[Ids]:
        """The numbers of samples that are read at a time; of volumes fewer, since each is as large as many images."""
        rows = max(1, min(BLOCK, VALUES // prod(self.shape)))
        return [np.arange(start, min(start + rows, len(self)), dtype=np.int64) for start in range(0, len(self), rows)]

    @property
    def _publish_native(self) -> PublishNative:
        publish = self._native()
        if publish is None:
            raise UsageError("a window is for images as they are published, and these were changed since: leave it out")
        return publish

    @property
    def _fits(self) -> bool:
        item = 1 if self.source.levels == 255 else 4
        channels, height, width = self.shape
        masks = 1 if self.task.name == "segmentation" else 0
        return len(self) * height * width * (channels * item + masks) <= self._resident

    def _beyond_memory(self) -> WorkingFile:
        if self._working is None:
            row = np.empty(self.shape, self.source.dtype)
            self._working = WorkingFile(len(self), row, self._make)
        return self._working

    def _targets(self, numbers: Ids) -> Tensor:
        targets = self.task.targets(self.source, self.ids[numbers])
        if targets.ndim == 3 and targets.shape[1:] != self.shape[1:]:
            # A step has resized the samples.
            targets = functional.interpolate(targets[:, None], self.shape[1:], mode="nearest-exact")[:, 0]
        return targets

    def _make(self, numbers: Ids) -> Samples:
        ids = self.ids[numbers]
        return self._publish(ids, self.source.read(ids))
