"""What a run really sends through its surrogate, against what the cost model says."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft
from two_phase_toys import CLASSES, RUNS, make_method

from hpcule.craft.table import find
from hpcule.craft.work import Extent

N, SHARDS = 72, 4
COUNTED = [run for run in RUNS if run.split()[0] == "em"]
"""Runs of the template's methods that have a closed form; the others are timed."""


def count_passes(method):
    """Hook the surrogate: a forward and a backward of a sample is a pass, a forward alone is half of one."""
    passes = []

    def note(module, inputs):
        # A single sample without a gradient is the example that folding BatchNorm needs.
        if torch.is_grad_enabled() or len(inputs[0]) > 1:
            passes.append(len(inputs[0]) * (1.0 if torch.is_grad_enabled() else 0.5))

    method.surrogate.network.stem.register_forward_pre_hook(note)
    return passes


@pytest.mark.parametrize("run", COUNTED)
def test_passes_are_those_of_the_cost_model(run):
    source = ToySource(N, classes=CLASSES)
    # 18 samples a shard in ghosts of 6: nothing is left over.
    method = make_method(run, source, shards=SHARDS)
    passes = count_passes(method)
    craft(method)
    extent = Extent(samples=N, shards=SHARDS, shape=source.shape, classes=CLASSES, levels=255, workers=1, exact=True)
    work = find(run.split()[0]).work(method.config, extent)
    expected = sum(phase.passes for phase in work.phases if phase.stage not in ("round", "search"))
    # Errors are counted in a forward that a class-wise round calls its own.
    errors = sum(phase.passes for phase in work.phases if phase.stage == "round") * 0.5
    assert np.sum(passes) == pytest.approx(expected + errors, rel=1e-6)
