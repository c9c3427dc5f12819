"""Images, and data sets as callers of the Python interface have them, in a module so that they can be pickled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

PILLOW = Image.fromarray


def make_images(count: int, size: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [count, size, size, channels] whose brightness tells the class, of 3, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.normal(60 + 60 * labels[:, None, None, None], 25, (count, size, size, channels))
    return images.clip(0, 255).round().astype(np.uint8), labels


class Items(Dataset):
    """(image, label), or images alone; each may be read once."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, make: Callable[[np.ndarray], object]) -> None:
        self.images, self.labels, self.make = images, labels, make
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> object:
        assert index not in self.read, "an augmented sample would be another one"
        self.read.append(index)
        image = self.make(self.images[index])
        return image if self.labels is None else (image, self.labels[index])


class Tensors(Dataset):
    """As torchvision's data sets with ToTensor: float32 [C, H, W] in [0, 1], and a tensor as label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index].float().div(255), self.labels[index]
