"""First weights under which inputs that differ give slots that differ.

torch draws the weights of linear maps and convolutions with a variance of 1/(3 · fan-in). Each keeps a third of the
variance of what it gets, and a sixth with a ReLU, so that after a few layers almost nothing but biases and position
embeddings is left: behind a frame encoder of three convolutions and two linear maps, slots of different scenes differ
by 0.03 % of their size (`benchmarks/first_weights.py`). Training then stays at the mean image, or at chance, until the
weights have grown.
"""

import math
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEFAULT_GAIN = 1 / math.sqrt(3)
"""Gain of torch's first weights of linear maps and convolutions."""


@torch.no_grad()
def scale_weights(module: nn.Module, mean: Float[Tensor, " C"], std: Float[Tensor, " C"]) -> None:
    """Scale the first weights of everything between pixels and slots such that variance is kept.

    A module takes part if its class has the attribute `scales_weights`: then the weights of its linear maps and
    convolutions are scaled to a gain of 1, or of √2 before a ReLU (He et al. 2015, 1502.01852), and their biases become
    0. If it has a method `normalize_pixels`, its first layer also gets pixels with mean 0 and variance 1.

    Args:
        module: a task or a model.
        mean: mean of the pixels of the training data, in [0, 1], for each colour channel.
        std: their standard deviation.
    """
    taking_part = [part for part in module.modules() if getattr(part, "scales_weights", False)]
    for layer, gain in {layer: gain for part in taking_part for layer, gain in _gains(part).items()}.items():
        layer.weight.mul_(gain / DEFAULT_GAIN)
        if layer.bias is not None:
            layer.bias.zero_()
    for part in taking_part:
        normalize = getattr(part, "normalize_pixels", None)
        if normalize is not None:
            normalize(mean, std.clamp(min=1 / 255))


def fold_normalization(layer: nn.Linear | nn.Conv2d, mean: Float[Tensor, " C"], std: Float[Tensor, " C"]) -> None:
    """Change a layer so that it gives for pixels what it gave for (pixels - mean) / std.

    Args:
        layer: a convolution of the channels, or a linear map of pieces with the channel as the first axis (c, y, x).
        mean: of each channel.
        std: of each channel.
    """
    weight = layer.weight.view(len(layer.weight), len(mean), -1)  # a view: what changes it changes the layer
    mean, std = mean.to(weight), std.to(weight)
    weight /= std[:, None]
    assert layer.bias is not None
    layer.bias -= (weight * mean[:, None]).sum((1, 2))


def _gains(module: nn.Module) -> dict[nn.Linear | nn.Conv2d, float]:
    """Linear maps and convolutions within a module, with the gain that keeps variance."""
    gains: dict[nn.Linear | nn.Conv2d, float] = {}
    for parent in module.modules():
        children = list(parent.children())
        for child, after in zip_longest(children, children[1:]):
            if isinstance(child, (nn.Linear, nn.Conv2d)):
                gains[child] = math.sqrt(2) if isinstance(after, nn.ReLU) else 1.0
    return gains
