"""Kernels that are tried before they are used: a small computation is compared with one that is known to be right."""

import logging
from collections.abc import Callable

import torch

TOLERANCE = 1e-3
"""Largest relative error of a trial, far above that of float32 and far below that of a wrong result."""


def failure(what: str, device: str, error_of: Callable[[], float], tolerance: float = TOLERANCE) -> str:
    """Why a trial fails; empty if its error is below the tolerance. A failure is warned of.

    The trial has gradients and no autocast, whatever the context of the first call.

    Args:
        what: what is tried, for the warning.
        device: type of the device.
        error_of: returns the largest relative error of the trial.
        tolerance: the largest error that is allowed.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            error = error_of()
        reason = "" if error < tolerance else f"a trial differs from the reference by {error:.2g}"
    # a kernel that cannot be compiled may raise anything
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"
    if reason:
        logging.getLogger("slotssm").warning("%s does not work here and is not used: %s", what, reason)
    return reason


def largest_error(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> float:
    """Largest error of any tensor, relative to its largest value; NaN if a tensor has one."""
    pairs = zip(found, expected, strict=True)
    errors = [(ours - theirs).detach().abs().amax() / theirs.detach().abs().amax() for ours, theirs in pairs]
    return float(torch.stack(errors).amax())
