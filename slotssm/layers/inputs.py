"""Checks of layer inputs, with clear errors instead of a failed matrix product inside a layer."""

from torch import Tensor, nn

from slotssm.errors import InputError


def check_input(layer: nn.Module, values: Tensor, axes: str, width: int) -> None:
    """Refuse anything but floating-point values with the right number of axes and the right width.

    Args:
        layer: the layer, for its name in the message.
        values: the input to check.
        axes: names of all axes except the last, such as "B, L".
        width: length of the last axis.

    Raises:
        InputError: wrong number of axes, wrong width, or a dtype that is not floating-point.
    """
    if values.ndim == axes.count(",") + 2 and values.shape[-1] == width and values.is_floating_point():
        return
    dtype = str(values.dtype).removeprefix("torch.")
    raise InputError(
        f"{type(layer).__name__} takes floating-point numbers of shape [{axes}, {width}], not {dtype} of shape "
        f"{list(values.shape)}"
    )
