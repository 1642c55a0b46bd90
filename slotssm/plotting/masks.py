"""Soft masks painted over a video."""

import numpy as np

from slotssm.data.importers.readers.framing import resize_weights
from slotssm.plotting.colors import slot_colors

OPACITY = 0.45
"""Share of the slot's colour in a painted pixel."""
PX_PER_CONTOUR_PX = 240
"""Shorter side of a video for each pixel of a contour's width."""


def paint_masks(frames: np.ndarray, soft: np.ndarray, num_slots: int, contours: bool = True) -> np.ndarray:
    """A video with every pixel tinted in the colour of the slot that owns it.

    Masks are resized to the video before the slots compete, so that their edges are smooth. Channels beyond the slots,
    such as a canvas, are not tinted.

    Args:
        frames: uint8 [T, H, W, 3].
        soft: [T, C, h, w] weights of C >= num_slots channels, of any resolution.
        num_slots: K.
        contours: whether to outline the slots in their full colours.

    Returns:
        uint8 [T, H, W, 3].
    """
    height, width = frames.shape[1:3]
    painted = np.empty_like(frames)
    colors, thickness = slot_colors(num_slots).astype(np.float32), max(1, min(height, width) // PX_PER_CONTOUR_PX)
    # one frame at a time, to limit memory
    for frame, weights, target in zip(frames, soft, painted, strict=True):
        owners = resize_weights(weights, (height, width)).argmax(axis=0)
        tint = colors[np.minimum(owners, num_slots - 1)]
        share = np.full(owners.shape, OPACITY, np.float32)
        if contours:
            share[_edges(owners, thickness)] = 1
        share[owners >= num_slots] = 0
        target[:] = np.rint(frame + share[..., None] * (tint - frame))
    return painted


def _edges(owners: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels [H, W] within `thickness` of a pixel with another owner, along rows and columns."""
    edges = np.zeros(owners.shape, bool)
    for shift in range(1, thickness + 1):
        rows, columns = owners[shift:] != owners[:-shift], owners[:, shift:] != owners[:, :-shift]
        edges[shift:] |= rows
        edges[:-shift] |= rows
        edges[:, shift:] |= columns
        edges[:, :-shift] |= columns
    return edges
