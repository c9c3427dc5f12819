"""Orthogonal projection: take away the directions that a linear classifier of the pixels looks along.

Sandoval-Segura et al., "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023, arXiv 2305.19254.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.victim.published import Published
from hpcule.world.keyed import key, order

EPOCHS, BATCH, LEARNING_RATE = 20, 1024, 0.1
MILESTONES = (10, 15)
"""Epochs after which the learning rate is a tenth."""


def fit_directions(train: Published, seed: int, device: torch.device) -> Tensor:
    """Orthonormal directions [C * H * W, at most classes] that logistic regression without biases finds.

    Args:
        train: the samples as they are published, and their labels.
        seed: of the order of its batches; weights start at 0.
        device: where to compute.
    """
    classes = train.source.class_count
    weights = torch.zeros(classes, int(np.prod(train.shape)), device=device)
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE * 0.1 ** sum(epoch >= milestone for milestone in MILESTONES)
        numbers = order(key(seed, "projection", epoch), np.arange(len(train), dtype=np.int64))
        for batch in np.array_split(numbers, -(-len(numbers) // BATCH)):
            images, labels = train.images(batch, device)
            pixels = images.flatten(1)
            slopes = functional.softmax(pixels @ weights.T, dim=1)
            slopes -= functional.one_hot(labels, classes)
            weights -= rate / len(batch) * slopes.T @ pixels
    rows = functional.normalize(weights, dim=1)
    directions: Tensor = torch.linalg.qr(rows.T).Q
    return directions


def project(images: Tensor, directions: Tensor) -> Tensor:
    """Images [b, C, H, W] without their part along the directions [C * H * W, k]; they may leave [0, 1]."""
    pixels = images.flatten(1)
    rest: Tensor = pixels - (pixels @ directions) @ directions.T
    return rest.view_as(images)
