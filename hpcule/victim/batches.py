"""From samples as an attacker reads them to what a network sees: ordinary augmentation, then countermeasures."""

from __future__ import annotations

from dataclasses import replace

import torch

from hpcule.data.annotations import VOID
from hpcule.data.augment import CropFlip, MirrorShift
from hpcule.data.source import Ids
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.augmentation import augment
from hpcule.victim.countermeasures.mixing import Mixed, mix
from hpcule.victim.countermeasures.projection import fit_directions, project
from hpcule.victim.fixmatch import FewLabels, FixMatch
from hpcule.victim.published import Published
from hpcule.world.keyed import key


class Batches:
    """The training batches of one victim."""

    def __init__(self, config: VictimConfig, train: Published, seed: int, device: torch.device) -> None:
        """Take the recipe's steps apart by where they act; those that act once on samples have done so in `train`.

        Raises:
            UsageError: the recipe is for more labels than there are.
        """
        steps = config.countermeasures
        self._train = train
        self._train.load()
        self._directions = fit_directions(self._train, seed, device) if steps.named("projection") else None
        self._each = steps.at("batch")
        few = steps.named("fixmatch")
        self._fixmatch = FixMatch(self._train, int(few.strength or 0), seed) if few else None
        self._mixes = steps.at("labels")
        self._crop_flip = steps.named("crop-flip") is not None
        self._mirror_shift = steps.named("speed") is not None
        self._smoothing = config.label_smoothing
        self._seed, self._device = seed, device

    def take(self, numbers: Ids, epoch: int, step: int, progress: float) -> Mixed | FewLabels:
        """Samples in [0, 1] with what the loss asks of them, on the device, after such a share of the steps."""
        if self._fixmatch:
            return self._fixmatch.take(numbers, epoch, self._device)
        images, targets = self._train.images(numbers, self._device)
        ids, task = self._train.ids[numbers], self._train.task
        if self._directions is not None:
            images = project(images, self._directions)
        if view := self._view(ids, images.shape[3], epoch):
            images = view.apply(images)
            if targets.ndim == 3:
                # Zeros that are added at the borders become void.
                targets = VOID - view.apply((VOID - targets)[:, None])[:, 0]
        images, targets = task.question(images, targets, key(self._seed, "question", epoch), ids)
        versions = max([1, *(each.versions(progress) for each in self._each)])
        purposes = [key(self._seed, "countermeasures", epoch, version) for version in range(versions)]
        seen = torch.cat([augment(images, self._each, purpose, ids) for purpose in purposes])
        mixed = mix(seen, targets, self._mixes, key(self._seed, "mixing", step), versions)
        return replace(mixed, smoothing=self._smoothing)

    def _view(self, ids: Ids, width: int, epoch: int) -> CropFlip | MirrorShift | None:
        """How an epoch shows these samples; None: as they are."""
        purpose, depth = key(self._seed, "victim augment", epoch), self._train.source.depth
        if self._crop_flip:
            return CropFlip.draw(purpose, ids, max(1, width // 8), depth)
        if self._mirror_shift:
            flips = key(self._seed, "victim flips")
            return MirrorShift.draw(purpose, flips, ids, epoch, max(1, width // 16), depth)
        return None
