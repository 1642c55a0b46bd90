"""Scans (selective for Mamba, state space duality for Mamba-2, time-invariant), convolution and attention.

Each is one function for all devices.
"""

from slotssm.ops.attention import attend, multi_head_attention
from slotssm.ops.convolution import causal_convolve
from slotssm.ops.diagonal import diagonal_scan, diagonal_step
from slotssm.ops.selective_scan import selective_scan, selective_scan_step
from slotssm.ops.ssd import ssd, ssd_step

__all__ = [
    "attend",
    "causal_convolve",
    "diagonal_scan",
    "diagonal_step",
    "multi_head_attention",
    "selective_scan",
    "selective_scan_step",
    "ssd",
    "ssd_step",
]
