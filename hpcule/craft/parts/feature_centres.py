"""Where a network's features of each class lie: what methods aim at that move samples in feature space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcule.craft.method import Problem, finite
from hpcule.craft.parts.surrogate import features
from hpcule.data.view import View
from hpcule.world.exact import Sum


def class_centres(problem: Problem, networks: Sequence[nn.Module]) -> Tensor:
    """Mean feature of every class under each network, float32 [networks, K, F]; all ranks together.

    A class without a sample has the centre 0.
    """
    device, classes = problem.world.device, problem.source.class_count
    with torch.no_grad():
        width = features(networks[0], torch.zeros(1, *problem.source.shape, device=device)).shape[1]
    shapes = [torch.Size([len(networks), classes, width]), torch.Size([classes])]
    sums = Sum(shapes, device, exact=problem.exact)
    with torch.no_grad():
        for shard in problem.owned:
            ids = problem.partition.ids(shard)
            for rows in problem.tiles(ids):
                tile = ids[rows]
                clean = problem.unit_interval(problem.reader.take(shard, tile))
                labels = torch.from_numpy(problem.classes(tile)).to(device)
                found = torch.stack([features(network, clean) for network in networks])
                counts = torch.bincount(labels, minlength=classes).float()
                sums.add([torch.zeros(shapes[0], device=device).index_add_(1, labels, found), counts])
    total, counts = sums.total(problem.world)
    return finite(total / counts.clamp_min(1)[:, None])


def feature_gradient(frozen: nn.Module, inputs: Tensor, centres: Tensor, view: View | None = None) -> Tensor:
    """Gradient of the summed mean squared distance between features and centres [n, F], for the inputs [n, C, H, W].

    The network looks through `view`, where there is one.
    """
    leaf = inputs.detach().requires_grad_()
    loss = (features(frozen, view.apply(leaf) if view else leaf) - centres).square().mean(1).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient
