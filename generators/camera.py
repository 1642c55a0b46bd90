"""What the viewer does: where the view is, and how much light there is."""

import math

import numpy as np

from generators.physics import Motion

LIGHT_PERIOD_FRAMES = (20.0, 60.0)
"""Range of the time that the light takes to darken and to come back."""


def pan(rng: np.random.Generator, num_frames: int, reach_px: float, speed_px_per_frame: float) -> Motion:
    """Swing the view about its place of rest, along each axis on a sine of its own.

    Args:
        rng: source of randomness.
        num_frames: T.
        reach_px: largest distance along an axis; amplitudes are a half to the whole of it.
        speed_px_per_frame: highest speed along an axis.

    Returns:
        Position and velocity [T, 2] of the view.
    """
    amplitude = rng.uniform(0.5, 1, 2) * reach_px
    rate = rng.uniform(0.5, 1, 2) * speed_px_per_frame / reach_px
    angle = rate * np.arange(num_frames)[:, None] + rng.uniform(0, 2 * math.pi, 2)
    return Motion(amplitude * np.sin(angle), amplitude * rate * np.cos(angle))


def changing_light(rng: np.random.Generator, num_frames: int, strength: float) -> np.ndarray:
    """Light that darkens and comes back on a sine, in a random tint.

    Args:
        rng: source of randomness.
        num_frames: T.
        strength: largest share of a channel that is taken away; each loses a half to the whole of it.

    Returns:
        float64 [T, 3], what is left of red, green and blue, between 1 - `strength` and 1.
    """
    taken = rng.uniform(0.5, 1, 3) * strength
    angle = 2 * math.pi * np.arange(num_frames) / rng.uniform(*LIGHT_PERIOD_FRAMES) + rng.uniform(0, 2 * math.pi)
    return 1 - taken * (0.5 - 0.5 * np.cos(angle))[:, None]
