"""Frozen networks rewritten to compute the same function faster; for evaluation mode and input gradients only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(network: nn.Module, example: Tensor) -> None:
    """Put each BatchNorm that directly follows a convolution into that convolution's weights, in place.

    Args:
        network: in evaluation mode; each of its convolutions is called once.
        example: an input; one forward pass shows which BatchNorm follows which convolution.
    """
    assert not network.training
    last: list[tuple[nn.Conv2d, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            last[:] = [(module, output)]
        # Not those that are derived from it: timm's has an activation inside, which would be lost.
        elif type(module) is nn.BatchNorm2d and last and last[0][1] is inputs[0]:
            pairs.append((last[0][0], module))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
        _replace(network, names[norm], nn.Identity())
    network.requires_grad_(False)


def split_strides(network: nn.Module) -> None:
    """Let depthwise convolutions with a stride compute every output and then skip, in place.

    For bf16 on a CPU, where the strided ones' input gradient has no fast kernel. Measured on one core with AVX-512 BF16
    and 32 images: four such layers of EfficientNet-Lite0 took 471 of 576 ms of all convolutions' backward passes.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and max(module.stride) > 1:
            height, width = module.stride
            module.stride = (1, 1)
            _replace(network, name, nn.Sequential(module, Every(height, width)))


class Every(nn.Module):
    """Every n-th row and m-th column."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        """Skip the others: [b, C, H, W] to [b, C, ceil(H / n), ceil(W / m)]."""
        return images[:, :, :: self.height, :: self.width]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
