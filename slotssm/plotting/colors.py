"""Colours of slots and objects, the same in every picture of a run."""

import colorsys

import numpy as np

_BASE_COLORS = (
    (230, 75, 53),
    (77, 187, 213),
    (60, 180, 75),
    (250, 190, 40),
    (145, 90, 200),
    (255, 130, 200),
    (0, 110, 180),
)
BACKGROUND = (28, 28, 32)
IGNORED = (90, 90, 90)
CONTEXT_GREY = 120
"""Grey level towards which context frames are faded."""


def slot_colors(num_slots: int) -> np.ndarray:
    """One colour for each slot, uint8 [K, 3]; hues beyond the first seven are spaced by the golden angle."""
    more = [
        colorsys.hsv_to_rgb((0.11 + 0.381966 * k) % 1, 0.55, 0.95) for k in range(max(0, num_slots - len(_BASE_COLORS)))
    ]
    colors = [*_BASE_COLORS, *((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in more)]
    return np.array(colors[:num_slots], np.uint8).reshape(num_slots, 3)


def mask_colors(num_slots: int, num_masks: int) -> np.ndarray:
    """One colour for each mask, uint8 [C, 3]: those of the slots, and that of the background for a canvas.

    Args:
        num_slots: K.
        num_masks: C, which is K, or K + 1 with a canvas.
    """
    return np.concatenate(
        [slot_colors(num_slots), np.array([BACKGROUND] * (num_masks - num_slots), np.uint8).reshape(-1, 3)]
    )


def colorize(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Convert label maps to RGB.

    Args:
        labels: integer [...], indices into `colors`.
        colors: uint8 [C, 3].

    Returns:
        uint8 [..., 3].
    """
    return colors[labels]


def object_colors(ids: np.ndarray, slots: dict[int, int], num_slots: int) -> np.ndarray:
    """Colours of the true labels 0 to 255: the colour of the slot matched to the object, or else one of its own.

    Args:
        ids: true object ids that occur.
        slots: slot of each matched object, by object id.
        num_slots: K.

    Returns:
        uint8 [256, 3]; background and ignored pixels are grey.
    """
    spare = slot_colors(num_slots + len(ids))
    table = np.zeros((256, 3), np.uint8)
    table[0], table[255] = BACKGROUND, IGNORED
    free = iter(spare[num_slots:])
    for number in ids:
        if 0 < number < 255:
            table[number] = spare[slots[int(number)]] if int(number) in slots else next(free)
    return table


def overlay(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Truth in green and prediction in red, by brightness, so that their overlap is yellow.

    Args:
        true: uint8 [..., 3].
        pred: the same shape.

    Returns:
        uint8 [..., 3].
    """
    green, red = true.max(axis=-1), pred.max(axis=-1)
    return np.stack([red, green, np.zeros_like(red)], axis=-1)


def fade(frames: np.ndarray) -> np.ndarray:
    """Fade frames, uint8 [...], half-way to grey, to mark them as context rather than prediction."""
    return (frames // 2 + CONTEXT_GREY // 2).astype(np.uint8)
