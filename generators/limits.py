"""Limits on the size, number and speed of objects."""

import math

MAX_COVERAGE = 0.45
"""Largest fraction of the frame that discs may cover: random placement without overlap jams at about 0.547."""
MIN_SPEED_PX_PER_FRAME = 1e-6
"""Lowest speed other than 0: slower motion is indistinguishable from rest and cannot be rescaled accurately."""


def check_coverage(num_discs: int, radius_px: float, size_px: int, outside_px: float = 0) -> None:
    """Refuse more discs than random placement can fit into the square without overlap."""
    world_px = size_px + 2 * outside_px
    most = int(MAX_COVERAGE * world_px**2 / (math.pi * radius_px**2))
    if 2 * radius_px > size_px * 0.9:
        raise ValueError(f"radius {radius_px:g} px is too large for a frame of {size_px} px")
    if num_discs > most and num_discs > 1:
        raise ValueError(
            f"{num_discs} objects of radius {radius_px:g} px do not fit into {world_px:g} px: at most {most}; "
            "use fewer or smaller ones, or a larger size"
        )


def check_speed(speed_px_per_frame: float, size_px: int) -> None:
    """Refuse a speed at which an object crosses the image within two frames."""
    if speed_px_per_frame > size_px / 2:
        raise ValueError(f"a speed of {speed_px_per_frame:g} px/frame crosses half the frame at once")
