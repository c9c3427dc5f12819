"""Class separation (Ren et al., ICLR 2023, arXiv 2210.10114): deltas of a class near each other, far from others'.

The ratio, akin to Davies and Bouldin's, is the mean over ordered pairs of classes of

    (s_k + s_l + 1e-5) / (|c_k - c_l| + 1e-5)

with c_k the mean delta of class k and s_k its deltas' mean distance from it. The authors' code computes s_k again as a
constant: no gradient flows through it, and a step only moves the centres.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SMALL = 1e-5
"""Keeps the ratio finite where two centres coincide."""


def of_centres(centres: Tensor, spreads: Tensor, counts: Tensor) -> tuple[Tensor, float]:
    """The ratio's gradient with respect to the centres, and the ratio.

    Args:
        centres: c [K, D].
        spreads: s [K], constants.
        counts: samples [K] of each class; one without any takes no part.

    Returns:
        Gradient [K, D], where two centres that coincide do not push each other; and the ratio, 0 for a single class.
    """
    distances = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    present = counts > 0
    pairs = (present[:, None] & present) & ~torch.eye(len(centres), dtype=torch.bool, device=centres.device)
    wide = (spreads[:, None] + spreads + SMALL) * pairs / pairs.sum().clamp_min(1)
    ratio = float((wide / (distances + SMALL)).sum())
    # A pair stands in the mean twice.
    weights = torch.where(distances > 0, 2 * wide / (distances + SMALL).square() / distances, 0)
    return weights @ centres - weights.sum(1, keepdim=True) * centres, ratio


def of_deltas(deltas: Tensor, labels: Tensor) -> Tensor:
    """The ratio's gradient [n, C, H, W] with respect to the deltas of a group, by its own centres.

    Args:
        deltas: [n, C, H, W] in units of [0, 1].
        labels: int64 [n].
    """
    members = torch.from_numpy(np.unique(labels.cpu().numpy(), return_inverse=True)[1]).to(labels.device)
    counts = torch.bincount(members)
    shares = functional.one_hot(members).double() / counts
    flat = deltas.flatten(1).double()
    centres = shares.T @ flat
    spreads = shares.T @ (flat - centres[members]).norm(dim=1)
    gradient, _ = of_centres(centres, spreads, counts)
    return (shares @ gradient).view_as(deltas).float()
