"""Properties of parameters: whether weight decay applies to them, and whether they can affect the output."""

from fnmatch import fnmatchcase

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHT_MATRICES: dict[tuple[type[nn.Module], ...], str] = {
    (nn.Linear, nn.Bilinear, *CONVOLUTIONS): "weight",
    (nn.RNNCellBase, nn.RNNBase): "weight_*",
    (nn.MultiheadAttention,): "*_weight",
}
"""Modules of torch, and a name pattern of those of their own parameters that are weight matrices."""


def decayed_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters to which weight decay applies, each once, in the order of `module.parameters()`.

    These are the weights of linear maps, convolutions (including transposed and depthwise ones) and recurrent cells.
    Excluded are biases, norms, learned queries and initial slots, position embeddings, and the dynamics of state space
    models: decay would pull those towards arbitrary values, such as a step size or a scale of zero.

    The class attribute `weight_matrices`, a tuple of names, lists which of a class's own parameters (not those of its
    children) are such weights; torch's modules are known. Parameters that are not listed do not decay.

    Args:
        module: a model, a task or any part of one.
    """
    matrices = {id(parameter) for part in module.modules() for parameter in _weight_matrices(part)}
    return [parameter for parameter in module.parameters() if id(parameter) in matrices]


def _weight_matrices(part: nn.Module) -> list[nn.Parameter]:
    """The weight matrices among the parameters of a module itself, without its children."""
    declared = getattr(type(part), "weight_matrices", None)
    if declared is not None:
        return [part.get_parameter(name) for name in declared]
    patterns = [pattern for kinds, pattern in WEIGHT_MATRICES.items() if isinstance(part, kinds)]
    own = part.named_parameters(recurse=False)
    return [parameter for name, parameter in own if any(fnmatchcase(name, pattern) for pattern in patterns)]


def count_unused_parameters(module: nn.Module, num_slots: int) -> int:
    """Number of parameters that cannot affect the output of a module, whatever their values; their gradient is zero.

    A softmax over one key is 1 for any query, so with a single slot, the queries and keys of self-attention over slots
    have no effect; and anything that all queries share cancels in a softmax over the slots. A class reports its number
    through the method `count_unused_parameters(num_slots)`; a module without this method has those of its children.
    More than one token per step is assumed.

    Args:
        module: a model or a part of one.
        num_slots: K, the number of slots that it processes.
    """
    own = getattr(module, "count_unused_parameters", None)
    if own is not None:
        return own(num_slots)
    return sum(count_unused_parameters(child, num_slots) for child in module.children())
