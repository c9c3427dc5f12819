"""Purification: a generative model that somebody trained elsewhere draws the published samples again, as clean ones.

Two kinds of checkpoint plug in. A diffusion model adds noise to a sample for a number of its steps and takes it off
again (Nie et al., ICML 2022, arXiv 2205.07460; on unlearnable data Dolatabadi, Erfani, Leckie, arXiv 2303.08500, with
100 of 1,000 steps). Any other network, such as an autoencoder, plugs in as a program that maps images to images
(D-VAE: Yu et al., ICML 2024, arXiv 2405.01460).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcule.config.errors import DataError, UsageError, first_line
from hpcule.data.source import Ids
from hpcule.publish.carry import Publish
from hpcule.victim.countermeasures.exported import read_program
from hpcule.victim.countermeasures.on_grid import on_grid
from hpcule.victim.countermeasures.table import Applied
from hpcule.world.keyed import key, normal
from hpcule.world.torchvision_compat import declare_missing_operators

PURIFICATIONS = ("diffusion", "rebuild")
"""Steps that need a checkpoint."""


def purification(step: Applied, path: str | None, levels: int, seed: int, device: torch.device) -> Publish:
    """What a purifying step does to samples of 0..levels, from the checkpoint at `path`.

    Raises:
        UsageError: no checkpoint was named, or it needs a package that is not installed.
        DataError: the checkpoint cannot be read, or is not for such images.
    """
    if path is None:
        raise UsageError(f"{step.name} needs a checkpoint: --set victim.purifier=PATH")
    load = _diffusion if step.name == "diffusion" else _program
    purify = load(Path(path), step, seed, device)

    def checked(images: Tensor, ids: Ids) -> Tensor:
        pure = purify(images, ids)
        if pure.shape != images.shape:
            raise DataError(f"{path}: gives images {list(pure.shape)} for {list(images.shape)}")
        return pure

    return on_grid(checked, levels, device)


Purify = Callable[[Tensor, Ids], Tensor]
"""A function from images float32 [n, C, H, W] in [0, 1] and their ids to purified images of the same shape."""


def _program(path: Path, step: Applied, seed: int, device: torch.device) -> Purify:
    program = read_program(path).to(device)

    def purify(images: Tensor, ids: Ids) -> Tensor:
        try:
            result: Tensor = program(images)
        except Exception as error:  # whatever the operators raise that its author wrote down
            raise DataError(
                f"{path}: takes no images {list(images.shape)} ({first_line(error)}); export it for batches "
                "of any size, with torch.export.Dim"
            ) from None
        return result

    return purify


def _diffusion(path: Path, step: Applied, seed: int, device: torch.device) -> Purify:
    denoiser, kept = _load_diffusers(path)
    denoiser = denoiser.to(device).eval()
    steps = int(step.strength or 0)
    if steps > len(kept):
        raise UsageError(f"diffusion-{steps}: {path} has {len(kept)} steps")

    def purify(images: Tensor, ids: Ids) -> Tensor:
        size, own = denoiser.config.sample_size, denoiser.config.in_channels
        if images.shape[1] != own or (isinstance(size, int) and tuple(images.shape[2:]) != (size, size)):
            raise DataError(f"{path}: for images of {own} channel(s) and {size} pixels; here {list(images.shape[1:])}")

        def noise(number: int) -> Tensor:
            drawn = normal(key(seed, "purification", number), ids, images[0].numel())
            return torch.from_numpy(drawn.astype(np.float32)).view_as(images).to(device)

        try:
            pure = diffused(lambda x, t: denoiser(x, t).sample, kept, steps, 2 * images - 1, noise)
        except Exception as error:  # whatever the layers raise that its author has put together
            raise DataError(f"{path}: cannot denoise images {list(images.shape)} ({first_line(error)})") from None
        return (pure + 1) / 2

    return purify


def diffused(
    denoise: Callable[[Tensor, int], Tensor], kept: Tensor, steps: int, images: Tensor, noise: Callable[[int], Tensor]
) -> Tensor:
    """Images with the noise of `steps` steps, denoised by ancestral sampling (Ho et al., arXiv 2006.11239).

    Args:
        denoise: from noisy images and a step, counted from 0, to the standard normal noise in them.
        kept: [T], the share of an image's variance that is left after each step: the products of 1 - beta.
        steps: 1..T.
        images: [n, C, H, W] in [-1, 1].
        noise: standard normal values like the images, by step; `steps` is the one that is added first.
    """
    seen = kept[steps - 1].sqrt() * images + (1 - kept[steps - 1]).sqrt() * noise(steps)
    for step in range(steps - 1, -1, -1):
        now, before = kept[step], kept[step - 1] if step else torch.ones_like(kept[0])
        left = now / before
        clean = ((seen - (1 - now).sqrt() * denoise(seen, step)) / now.sqrt()).clamp(-1, 1)
        seen = (before.sqrt() * (1 - left) * clean + left.sqrt() * (1 - before) * seen) / (1 - now)
        if step:
            seen = seen + ((1 - left) * (1 - before) / (1 - now)).sqrt() * noise(step)
    return seen


def _load_diffusers(path: Path) -> tuple[Any, Tensor]:
    """A network and its products of 1 - beta, from a folder as diffusers saves a DDPM."""
    declare_missing_operators()
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError:
        raise UsageError('diffusion needs a package that is not installed: pip install "hpcule[diffusion]"') from None
    folders = {name: path / name if (path / name).is_dir() else path for name in ("unet", "scheduler")}
    try:
        network = diffusers.UNet2DModel.from_pretrained(folders["unet"], local_files_only=True, use_safetensors=True)
        scheduler = diffusers.DDPMScheduler.from_pretrained(folders["scheduler"], local_files_only=True)
    except Exception as error:  # the library's own errors have no common ancestor
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a folder of a DDPM that diffusers has saved ({reason})") from None
    if scheduler.config.prediction_type != "epsilon":
        raise DataError(f"{path}: predicts {scheduler.config.prediction_type}; only models that predict the noise fit")
    return network, scheduler.alphas_cumprod
