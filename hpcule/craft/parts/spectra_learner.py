"""Spectra of texture classes, learnt so that frozen encoders read them above the samples' own content.

In each epoch every sample gets the texture of a class that is drawn at random, and so has nothing to do with what the
sample shows. One linear head an encoder has to name that class after a random step of an attacker. Heads and spectra
can only win where the texture is read in spite of the content: that is what the published samples have to teach.

    minimise over table and heads   mean CE(head(f(step(x + delta_t))), t),   t random, table_t the spectrum of delta_t
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.craft.method import Problem, finite
from hpcule.craft.parts.attacker_steps import disturbed
from hpcule.craft.parts.encoded import settle, through
from hpcule.data.schedule import Ghost, samples_of
from hpcule.data.source import Labels
from hpcule.nets.encoder import Encoder
from hpcule.store.checkpoint import PartState
from hpcule.world.exact import Sum
from hpcule.world.keyed import bits, key
from hpcule.world.spectra import Single

SPREAD_EVENLY = 0.1
"""Share of each spectrum's energy that lies evenly in all cells at the start: a softmax cannot leave zero."""
Render = Callable[[Ghost, Tensor], Tensor]
"""Gives the samples of a ghost the textures of a spectrum each [n, cells]: images [n, C, H, W] in [0, 1]."""


class SpectraLearner:
    """A table of spectra with one linear head an encoder, trained by all ranks together.

    Samples stay with their owner: only the gradients of the table and of the heads travel.
    """

    def __init__(
        self, start: Single, encoders: Sequence[Encoder], render: Render, problem: Problem, *, learning_rate: float
    ) -> None:
        self.problem = problem
        self.render = render
        self.learning_rate = learning_rate
        self.encoders = encoders
        for encoder in encoders:
            settle(encoder, problem)
        classes, cells = start.shape
        logits = np.log((1 - SPREAD_EVENLY) * start + SPREAD_EVENLY / cells)
        device = problem.world.device
        self._logits = torch.from_numpy(logits).to(device).requires_grad_()
        self._heads = [torch.zeros(classes, encoder.dimension, device=device).requires_grad_() for encoder in encoders]
        self._parameters = [self._logits, *self._heads]
        self._optimizer = torch.optim.Adam(self._parameters)
        self._gradients = Sum([parameter.shape for parameter in self._parameters], device, exact=problem.exact)

    def table(self) -> Single:
        """The spectra [classes, cells], of which each sums to 1.

        Raises:
            HpculeError: the training has diverged.
        """
        table: Single = finite(functional.softmax(self._logits.detach(), 1)).cpu().numpy()
        return table

    def train(self, batch: Sequence[Ghost], epoch: int, progress: float) -> dict[str, float]:
        """One step of Adam on a global batch, of which this rank works on the ghosts of its own shards.

        Args:
            batch: all its ghosts.
            epoch: number of the walk through all samples; in each, samples draw again.
            progress: share of the training that is done; the learning rate follows a cosine to 0.

        Returns:
            The mean cross-entropy, and each head's accuracy.
        """
        world, size = self.problem.world, samples_of(batch)
        sums = torch.zeros(1 + len(self.encoders), dtype=torch.float64, device=world.device)
        for ghost in self.problem.mine(batch):
            targets = torch.from_numpy(self._targets(ghost, epoch)).to(world.device)
            logits = self._named(ghost, targets, epoch)
            losses = [functional.cross_entropy(named, targets, reduction="sum") for named in logits]
            loss = torch.stack(losses).sum() / (size * len(losses))
            self._gradients.add(torch.autograd.grad(loss, self._parameters))
            right = [(named.argmax(1) == targets).sum() / size for named in logits]
            sums += torch.stack([loss.detach(), *right])
        for parameter, gradient in zip(self._parameters, self._gradients.total(world), strict=True):
            parameter.grad = gradient
        self._optimizer.param_groups[0]["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        self._optimizer.step()
        loss_mean, *accuracies = world.add(sums).tolist()
        return {"cross_entropy": loss_mean} | {f"accuracy_{number}": share for number, share in enumerate(accuracies)}

    def state(self) -> PartState:
        """Table, heads, and the moments of both."""
        return {
            "parameters": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: PartState) -> None:
        """Restore table, heads and moments."""
        with torch.no_grad():
            for parameter, saved in zip(self._parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self._optimizer.load_state_dict(dict(state["optimizer"]))

    def _targets(self, ghost: Ghost, epoch: int) -> Labels:
        """The class whose texture each sample of a ghost gets in an epoch [n], whatever its own class is."""
        words = bits(key(self.problem.seed, "texture", "taught class", epoch), ghost.ids, 1)[:, 0]
        return (words % np.uint64(len(self._logits))).astype(np.int64)

    def _named(self, ghost: Ghost, targets: Tensor, epoch: int) -> list[Tensor]:
        """What each head says of samples with the texture of their targets: logits [n, classes]."""
        images = self.render(ghost, functional.softmax(self._logits, 1)[targets])
        images = disturbed(images, key(self.problem.seed, "texture", "attacker", epoch), ghost.ids)
        named = []
        for encoder, head in zip(self.encoders, self._heads, strict=True):
            features = through(encoder, images, bf16=self.problem.autocast)
            # Standardised, so that one learning rate fits all encoders and the table.
            standard = functional.layer_norm(features, features.shape[1:])
            named.append(functional.linear(standard / math.sqrt(encoder.dimension), head))
        return named
