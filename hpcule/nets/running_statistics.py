"""BatchNorm of a single sample, of which there is no variance to take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpcule.nets.synchronised import SynchronisedBatchNorm


def normalising(network: nn.Module, samples: int) -> AbstractContextManager[None]:
    """The context in which a network in training takes a batch of this number of samples."""
    return running_statistics(network) if samples == 1 else nullcontext()


@contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """Inside the context every BatchNorm of the network normalises by its running statistics and leaves them as they
    are, while all other layers train."""
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm | SynchronisedBatchNorm)]
    training = [layer for layer in norms if layer.training]
    for layer in training:
        layer.eval()
    yield
    for layer in training:
        layer.train()
