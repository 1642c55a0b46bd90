"""The selective scan: one function, its backends."""

from slotssm.ops.selective_scan import selective_scan, selective_scan_step

__all__ = ["selective_scan", "selective_scan_step"]
