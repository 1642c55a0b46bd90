"""What a parameter is: whether weight decay acts on it, and whether it can change what its module computes."""

from fnmatch import fnmatchcase

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHT_MATRICES: dict[tuple[type[nn.Module], ...], str] = {
    (nn.Linear, nn.Bilinear, *CONVOLUTIONS): "weight",
    (nn.RNNCellBase, nn.RNNBase): "weight_*",
    (nn.MultiheadAttention,): "*_weight",
}
"""Modules of torch to a pattern of the names of those of their own parameters that are weights of linear maps."""


def decayed_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters on which weight decay should act, each once, in the order of `module.parameters()`.

    These are the weights of linear maps, convolutions (transposed and depthwise ones, too) and recurrent cells. Spared
    are biases, norms, learned queries and starts of slots, position embeddings, and the dynamics of state space
    models: decay would pull those towards values that mean something, such as a step size or a scale of zero.

    A class says in its attribute `weight_matrices`, a tuple of names, which of its own parameters (those that it
    registers itself, not those of its children) are such weights; torch's modules are known. What nobody names does
    not decay.

    Args:
        module: a model, a task or any part of one.
    """
    matrices = {id(parameter) for part in module.modules() for parameter in _weight_matrices(part)}
    return [parameter for parameter in module.parameters() if id(parameter) in matrices]


def _weight_matrices(part: nn.Module) -> list[nn.Parameter]:
    """Those parameters of one module, without its children's, that are weights of linear maps."""
    declared = getattr(type(part), "weight_matrices", None)
    if declared is not None:
        return [part.get_parameter(name) for name in declared]
    patterns = [pattern for kinds, pattern in WEIGHT_MATRICES.items() if isinstance(part, kinds)]
    own = part.named_parameters(recurse=False)
    return [parameter for name, parameter in own if any(fnmatchcase(name, pattern) for pattern in patterns)]


def count_unused_parameters(module: nn.Module, num_slots: int) -> int:
    """How many parameters cannot change what a module computes, whatever their values: they never get a gradient.

    Softmax over one key is 1 whatever the query, so that one slot alone makes queries and keys of self-attention over
    slots useless; and what all queries have in common cancels in a softmax over the slots. A class tells by its method
    `count_unused_parameters(num_slots)`; a module without one has those of its children. Several tokens a step are
    taken for granted.

    Args:
        module: a model or a part of one.
        num_slots: K that it sees.
    """
    own = getattr(module, "count_unused_parameters", None)
    if own is not None:
        return own(num_slots)
    return sum(count_unused_parameters(child, num_slots) for child in module.children())
