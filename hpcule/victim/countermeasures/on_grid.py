"""Changes of float images on a device as changes of samples on their grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hpcule.data.source import Ids, Samples
from hpcule.publish.carry import Publish

BATCH = 64


def on_grid(change: Callable[[Tensor, Ids], Tensor], levels: int, device: torch.device) -> Publish:
    """What a change of images does to samples of 0..levels: it is clipped and rounded.

    Args:
        change: from images float32 [64, C, H, W] in [0, 1] and their ids to images of the same shape; no gradient is
            taken. Each batch is whole, filled with copies of its last image, because the last bits of what a network
            makes of an image may depend on how many it gets.
        levels: largest value of the samples.
        device: where to compute.
    """

    def changed(ids: Ids, samples: Samples) -> Samples:
        result = np.empty_like(samples)
        for start in range(0, len(ids), BATCH):
            rows = np.minimum(np.arange(start, start + BATCH), len(ids) - 1)
            images = torch.from_numpy(samples[rows].astype(np.float32)).to(device) / levels
            with torch.no_grad():
                images = change(images, ids[rows])
            own = len(result[start : start + BATCH])
            result[start : start + BATCH] = (images[:own].clamp(0, 1) * levels).round().cpu().numpy()
        return result

    return changed
