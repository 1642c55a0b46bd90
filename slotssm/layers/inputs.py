"""Refusal of inputs that a layer cannot take, in words instead of a failed matrix product deep inside."""

from torch import Tensor, nn

from slotssm.errors import InputError


def check_input(layer: nn.Module, values: Tensor, axes: str, width: int) -> None:
    """Refuse anything but floating-point numbers of the right number of axes and the right width.

    Args:
        layer: what takes them, for its name.
        values: to be checked.
        axes: names of all axes but the last, such as "B, L".
        width: length of the last axis.

    Raises:
        InputError: another number of axes, another width, or a dtype that is not of floating point.
    """
    if values.ndim == axes.count(",") + 2 and values.shape[-1] == width and values.is_floating_point():
        return
    dtype = str(values.dtype).removeprefix("torch.")
    raise InputError(
        f"{type(layer).__name__} takes floating-point numbers of shape [{axes}, {width}], not {dtype} of shape "
        f"{list(values.shape)}"
    )
