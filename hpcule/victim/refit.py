"""Deep feature re-weighting: a trained victim's last layer is fitted anew to clean samples that a thief has.

What a network names by a perturbation it may still see by its other features (Kirichenko, Izmailov, Wilson, ICLR 2023,
arXiv 2204.02937; on unlearnable data Sandoval-Segura et al., NeurIPS 2023, arXiv 2305.19254, with 5,000 clean images of
50,000).
"""

from __future__ import annotations

import dataclasses
from typing import cast

from torch import nn

from hpcule.nets import Featured
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import is_fast
from hpcule.victim.probe import LinearLayer, all_features
from hpcule.victim.published import Published
from hpcule.victim.result import VictimResult
from hpcule.world.group import World


def refit(
    network: nn.Module, result: VictimResult, config: VictimConfig, owned: Published, test: Published, world: World
) -> VictimResult:
    """Replace the last layer, in place, by the optimum on `owned`, BatchNorm statistics staying; the new result.

    Args:
        network: one of `NETS`, in evaluation mode, the same on every rank.
        result: its last test gives way to one with the new layer.
        config: its recipe.
        owned: clean samples.
        test: clean samples of the same task.
        world: the ranks that share the samples out.
    """
    fast = is_fast(config, world.device)
    encode = cast("Featured", network).features
    layer = LinearLayer.fitted(*all_features(encode, owned, world, fast=fast), owned.source.class_count)
    layer.put_into(cast("nn.Linear", network.linear))
    accuracy = layer.accuracy(*all_features(encode, test, world, fast=fast))
    return dataclasses.replace(result, curve=[*result.curve[:-1], dataclasses.replace(result.last, test=accuracy)])
