"""Scans: selective (Mamba), state space duality (Mamba-2) and time-invariant, each one function for all devices."""

from slotssm.ops.convolution import causal_convolve
from slotssm.ops.diagonal import diagonal_scan, diagonal_step
from slotssm.ops.selective_scan import selective_scan, selective_scan_step
from slotssm.ops.ssd import ssd, ssd_step

__all__ = [
    "causal_convolve",
    "diagonal_scan",
    "diagonal_step",
    "selective_scan",
    "selective_scan_step",
    "ssd",
    "ssd_step",
]
