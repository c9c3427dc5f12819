"""Losses of contrastive learning, each summed over the samples of a group, and what features are like. Embeddings have
length 1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's (Chen et al., ICML 2020, arXiv 2002.05709), over both views of each sample, halved.

    Each view looks for the other of its sample among all views of the group but itself.

    Args:
        first: embeddings [n, d] of one view.
        second: of the other, in the same order.
        temperature: of the softmax.
    """
    views = torch.cat([first, second])
    similarities = views @ views.T / temperature
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    partners = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(similarities.masked_fill(itself, -torch.inf), partners, reduction="sum") / 2


def supervised_nt_xent(first: Tensor, second: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SupCon's (Khosla et al., NeurIPS 2020, arXiv 2004.11362, its equation 2), over both views of each sample, halved.

    Each view looks for all views of its class but itself, among all of the group: NT-Xent where no label comes twice.

    Args:
        first: embeddings [n, d] of one view.
        second: of the other, in the same order.
        labels: int64 [n].
        temperature: of the softmax.
    """
    views, names = torch.cat([first, second]), labels.repeat(2)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    similarities = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    partners = (names[:, None] == names[None, :]) & ~itself
    shares = functional.log_softmax(similarities, dim=1).masked_fill(~partners, 0)
    return -(shares.sum(1) / partners.sum(1)).sum() / 2


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's (He et al., CVPR 2020, arXiv 1911.05722): each query's own key against the queue.

    Args:
        queries: [n, d].
        keys: of the same samples [n, d]; one is no negative of another's query.
        queue: earlier keys [q, d].
        temperature: of the softmax.
    """
    own = (queries * keys).sum(1, keepdim=True)
    similarities = torch.cat([own, queries @ queue.T], dim=1) / temperature
    return functional.cross_entropy(
        similarities, torch.zeros(len(queries), dtype=torch.long, device=queries.device), reduction="sum"
    )


def regression(predictions: Tensor, targets: Tensor) -> Tensor:
    """BYOL's (Grill et al., NeurIPS 2020, arXiv 2006.07733): squared distances of rows [n, d], without negatives."""
    return (2 - 2 * (predictions * targets).sum(1)).sum()


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of two views' embeddings [n, d], of length 1: 0 where both are the same.

    Wang, Isola: "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, arXiv 2005.10242.
    """
    return float((first - second).square().sum(1).mean())


def uniformity(rows: Tensor) -> float:
    """Logarithm of the mean of exp(-2 d^2) over all pairs of embeddings [n, d]: 0 where all are the same, else below.

    The same authors'.
    """
    return float(torch.pdist(rows).square().mul(-2).exp().mean().log())
