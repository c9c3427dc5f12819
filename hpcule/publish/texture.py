"""Class texture on samples of any size: noise of (seed, id) with a spectrum, at the budget of each sample."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcule.data.source import Ids, Samples
from hpcule.measure.contrast import budget_shares
from hpcule.store.manifest import Manifest
from hpcule.world.coloured import Spectra, to_images, white_spectra
from hpcule.world.keyed import key
from hpcule.world.spectra import Single
from hpcule.world.texture_recipe import TextureRecipe


class Texture:
    """Draws what a recipe says; the same for a sample whatever is drawn next to it.

    Args:
        recipe: of the texture.
        seed: the key to everything that is drawn.
        shape: (C, H, W) of the samples as they were crafted.
        epsilon: budget in levels.
    """

    def __init__(self, recipe: TextureRecipe, seed: int, shape: tuple[int, int, int], epsilon: float) -> None:
        self.recipe = recipe
        self.bound = int(epsilon)
        self._full = epsilon
        self._channels = shape[0] if recipe.colour else 1
        self._crafted = min(shape[1:])
        self._noise = key(seed, "texture", "noise")
        self._spectra = key(seed, "texture", "spectra")

    @classmethod
    def of(cls, manifest: Manifest) -> Texture | None:
        """The texture of a store; None where its perturbations are of another kind."""
        if manifest.texture is None:
            return None
        return cls(manifest.texture, manifest.seed, manifest.sample_shape, manifest.epsilon)

    def white(self, ids: Ids, height: int, width: int) -> Spectra:
        """The half spectra of each sample's white noise [n, 1 or C, height, width // 2 + 1]."""
        return white_spectra(self._noise, ids, (self._channels, height, width))

    def saturated(self, noise: Tensor, clean: Samples) -> Tensor:
        """Noise [n, 1 or C, H, W] of any strength at the budget of clean samples, in levels; differentiable in the
        noise."""
        # In two steps, since the bits of one long sum depend on the number of threads.
        deviation = noise.square().mean(3).mean((1, 2)).sqrt().clamp_min(torch.finfo(noise.dtype).tiny)
        delta = (noise * (self.recipe.saturation / deviation)[:, None, None, None]).tanh_() * self.bound
        if self.recipe.flat < 1:
            delta = delta * torch.from_numpy(budget_shares(clean, self.recipe.flat, self._full)).to(delta.device)
        return delta

    def at(self, sample: int, spectrum: int, shown: Samples) -> npt.NDArray[np.float32]:
        """The perturbation of one sample at the size of an image of it.

        Args:
            sample: its id.
            spectrum: row of the table of spectra.
            shown: the clean image in levels [1 or C, H, W].

        Returns:
            Levels, not rounded [1 or C, H, W], within the budget.
        """
        height, width = shown.shape[1:]
        amplitude = _amplitude(self.recipe, self._crafted, self._spectra, spectrum, height, width)
        noise = to_images(self.white(np.array([sample]), height, width) * amplitude, width)
        return self.saturated(torch.from_numpy(noise), shown[None])[0].numpy()


@lru_cache(maxsize=8)
def _amplitude(recipe: TextureRecipe, crafted: int, purpose: int, spectrum: int, height: int, width: int) -> Single:
    """The amplitude of one spectrum; files next to each other are often of one size."""
    cells = recipe.cells(min(height, width), crafted)
    return cells.amplitude(recipe.table(cells, purpose)[spectrum], height, width)


def whole_levels(delta: Tensor, clean: Samples, levels: int) -> npt.NDArray[np.integer[Any]]:
    """Published minus clean [n, C, H, W]: a delta rounded to whole levels, and cut where the grid ends.

    Args:
        delta: in levels, float [n, 1 or C, H, W]; rounded in place.
        clean: [n, C, H, W].
        levels: largest value of the grid.
    """
    wide = np.int16 if levels == 255 else np.int32
    total: npt.NDArray[np.integer[Any]] = np.add(clean, delta.round_().numpy().astype(wide), dtype=wide)
    np.clip(total, 0, levels, out=total)
    np.subtract(total, clean, out=total, casting="unsafe")
    return total
