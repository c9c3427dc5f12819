"""A trained encoder with a new linear layer, both of which learn."""

from __future__ import annotations

from torch import Tensor, nn

from hpcule.nets.encoder import Encoder
from hpcule.nets.low_rank import add_low_rank
from hpcule.nets.seeded import seeded_weights


class Transferred(nn.Module):
    """A classifier that begins with an encoder's weights.

    In training the encoder's BatchNorms take batch statistics, unless they are frozen. All else in it computes as in
    evaluation: its dropout would draw from the global random state, and a victim depends on its seed alone.

    Args:
        encoder: given over to this network; its parameters need gradients from now on, but for the frozen ones.
        classes: the number of logits.
        seed: of the initial weights that are not trained yet.
        frozen: share of the encoder's tensors, from the first one on, that stay as they are.
        rank: of the changes that the encoder's weights may learn; None: any.
    """

    def __init__(self, encoder: Encoder, classes: int, seed: int, frozen: float = 0.0, rank: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        tensors = list(encoder.parameters())
        for tensor in tensors[: round(frozen * len(tensors))]:
            tensor.requires_grad_(False)
        with seeded_weights(seed):
            self.linear = nn.Linear(encoder.dimension, classes)
            if rank is not None:
                add_low_rank(encoder, rank)
        self.train()

    def train(self, mode: bool = True) -> Transferred:
        """Switch the BatchNorms."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode and all(tensor.requires_grad for tensor in module.parameters()))
        return self

    def features(self, images: Tensor) -> Tensor:
        """Map images [b, 1 or 3, H, W] in [0, 1] to what the linear layer sees [b, D]."""
        features: Tensor = self.encoder(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits [b, classes]."""
        logits: Tensor = self.linear(self.features(images))
        return logits
