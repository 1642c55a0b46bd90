"""Scans (selective for Mamba, state space duality for Mamba-2, time-invariant), convolution and attention.

Each is one function for all devices.
"""

from slotssm.ops.attention import attention
from slotssm.ops.convolution import causal_convolve
from slotssm.ops.diagonal import diagonal_scan, diagonal_step
from slotssm.ops.selective_scan import selective_scan, selective_scan_step
from slotssm.ops.ssd import ssd, ssd_step

__all__ = [
    "attention",
    "causal_convolve",
    "diagonal_scan",
    "diagonal_step",
    "selective_scan",
    "selective_scan_step",
    "ssd",
    "ssd_step",
]
