"""Where the snitch is in the last frame: the grid of CATER's ground plane (its task 3), and what hides it there."""

import math

FLOOR_EDGE = 3.0
"""The ground plane (CATER's "floor") is [-3, 3) in both directions."""
ENDINGS = ("visible", "occluded", "contained", "carried")
"""States of the snitch in the last frame, by their code in the field `snitch_ending`."""


def snitch_cell(x: float, y: float, cells_per_side: int = 6) -> int:
    """Index of the grid cell of a position, row by row; coordinates are first clipped to the ground plane."""

    def index(coordinate: float) -> int:
        clipped = min(max(coordinate, -FLOOR_EDGE), FLOOR_EDGE)
        # adding the edge before math.floor would round -1e-17 up into the next cell
        scaled = clipped * (cells_per_side / (2 * FLOOR_EDGE)) + (cells_per_side % 2) / 2
        return min(max(math.floor(scaled) + cells_per_side // 2, 0), cells_per_side - 1)

    return cells_per_side * index(y) + index(x)
