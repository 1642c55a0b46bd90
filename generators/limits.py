"""What fits into a frame, and how fast it may move."""

import math

MAX_COVERAGE = 0.45
"""Share of the frame that discs may cover: random placement without overlap jams at about 0.547."""
MIN_SPEED_PX_PER_FRAME = 1e-6
"""Slower motion cannot be told from rest, and cannot be scaled to a joint speed without loss."""


def check_coverage(num_discs: int, radius_px: float, size_px: int, outside_px: float = 0) -> None:
    """Refuse more discs than fit without overlap into the square (to the limit of random placement)."""
    world_px = size_px + 2 * outside_px
    most = int(MAX_COVERAGE * world_px**2 / (math.pi * radius_px**2))
    if 2 * radius_px > size_px * 0.9:
        raise ValueError(f"radius {radius_px:g} px is too large for a frame of {size_px} px")
    if num_discs > most and num_discs > 1:
        raise ValueError(
            f"{num_discs} objects of radius {radius_px:g} px do not fit into {world_px:g} px: at most {most}; "
            "take fewer, smaller ones or a larger size"
        )


def check_speed(speed_px_per_frame: float, size_px: int) -> None:
    """Refuse a speed at which an object is in the frame for a frame or two."""
    if speed_px_per_frame > size_px / 2:
        raise ValueError(f"a speed of {speed_px_per_frame:g} px/frame crosses half the frame at once")
