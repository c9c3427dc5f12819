"""D-VAE: purification by an autoencoder that is fitted to the published samples alone.

Yu et al., "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders", ICML 2024, arXiv 2405.01460. In
each of two passes a network learns to take samples apart into an image, which a code of little information describes,
and a residue that its class explains. The residues are subtracted from the samples; after the second pass, the images
that are decoded from what is left replace the samples. It needs the labels, and nothing clean.

Nothing in it depends on a victim's seed. Where victims keep their states, what is fitted is kept next to them, in a
file named by the samples that it was fitted to: each training set in such a folder is purified by networks that were
fitted once, whatever the recipe and the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hpcule.config.digest import digest
from hpcule.config.version import __version__
from hpcule.data.source import Ids
from hpcule.nets.disentangling import Disentangled, DisentanglingAutoencoder, build_disentangling
from hpcule.publish.carry import Publish
from hpcule.victim.countermeasures.fit import Batch, Fit
from hpcule.victim.countermeasures.on_grid import on_grid
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.world.group import World
from hpcule.world.keyed import key
from hpcule.world.precision import autocast, has_fast_bf16

FIRST_TARGET = 1.0
"""Information in the first pass, in nats a place; that of the second is the step's strength."""
WEIGHT = 0.01
"""Weight of the information above the target in the loss."""
SMALLEST_RESIDUE = 0.002
"""Mean square below which residues cost no more, and with them the perturbation that they draw."""
EARLY = 1 / 6
"""Share of the steps in which residues cost nothing: 10 of 60 epochs."""
EPOCHS, FEWEST_STEPS = 15, 1000
"""Length of a pass, whichever takes more steps. The authors have 60 epochs of 50,000 samples, as many as their victims;
15 are as many as ours have by default. Small sets get enough steps to be fitted at all."""
BATCH, RATE, CLIP_NORM = 64, 3e-3, 5.0


def dvae(train: Published, target: float, world: World, keeper: Keeper) -> Publish:
    """What D-VAE makes of published samples.

    Args:
        train: the samples.
        target: information of the second pass.
        world: the ranks that fit its networks together.
        keeper: of the victim, next to whose state the networks are kept.

    Raises:
        DivergedError: the weights of a network are not finite.
        StoppedError: a signal has asked to stop; the state is saved.
    """
    first = fitted_autoencoder(train, FIRST_TARGET, world, keeper)
    clean = _taken_apart(first, _without_residue, train, world.device)
    second = fitted_autoencoder(train.through(clean), target, world, keeper)
    cleaner = _taken_apart(second, _without_residue, train, world.device)
    decoded = _taken_apart(second, lambda images, found: found.images, train, world.device)
    return lambda ids, samples: decoded(ids, cleaner(ids, clean(ids, samples)))


def fitted_autoencoder(train: Published, target: float, world: World, keeper: Keeper) -> DisentanglingAutoencoder:
    """The network of one pass; see `dvae`."""
    purpose = key(0, "dvae")
    network = build_disentangling(train.shape, train.source.class_count, key(purpose, "init") % 2**63)
    steps = max(FEWEST_STEPS, EPOCHS * -(-len(train) // BATCH))

    def loss(called: nn.Module, batch: Batch) -> Tensor:
        images, labels = train.images(batch.numbers[batch.own], world.device)
        draws = torch.Generator().manual_seed(key(purpose, "noise", batch.step) % 2**63)
        noise = torch.randn(len(batch.numbers), *network.code_shape, generator=draws)
        found = called(images, labels, noise[torch.from_numpy(batch.own)].to(world.device))
        return _loss(found, images, target, batch, world, early=batch.step < EARLY * steps)

    own = keeper.in_same_folder(f"dvae-{digest(__version__, content(train), target)}.checkpoint")
    return Fit(steps, BATCH, RATE, CLIP_NORM).run(network, loss, "dvae", len(train), purpose, world, own)


def content(train: Published) -> str:
    """SHA-256 of all samples and labels of a training set."""
    seen = hashlib.sha256()
    for samples, labels in train.blocks():
        seen.update(samples.numpy().data)
        seen.update(labels.numpy().data)
    return seen.hexdigest()


def _loss(found: Disentangled, images: Tensor, target: float, batch: Batch, world: World, *, early: bool) -> Tensor:
    """The sum over this rank's samples. Of the information and the residues, only what the whole batch has beyond its
    limits counts."""
    error = (found.images - images).square() + ((found.images + found.residues).clamp(0, 1) - images).square()
    error, size = error.mean((1, 2, 3)), found.residues.square().mean((1, 2, 3))
    sums = torch.stack([found.divergences.detach().sum(), size.detach().sum()])
    information, residue = (world.add(sums) / (batch.times * len(batch.numbers))).tolist()
    if information > target:
        error = error + WEIGHT * found.divergences
    if residue > SMALLEST_RESIDUE and not early:
        error = error + size
    return error.sum()


def _taken_apart(
    network: DisentanglingAutoencoder,
    change: Callable[[Tensor, Disentangled], Tensor],
    train: Published,
    device: torch.device,
) -> Publish:
    """What `change` makes of training samples and their parts, by their mean codes."""
    source, none = train.source, torch.zeros(1, *network.code_shape, device=device)

    def apart(images: Tensor, ids: Ids) -> Tensor:
        with autocast(device, has_fast_bf16(device)):
            return change(images, network(images, torch.from_numpy(source.classes(ids)).to(device), none))

    return on_grid(apart, train.source.levels, device)


def _without_residue(images: Tensor, found: Disentangled) -> Tensor:
    return images - found.residues
