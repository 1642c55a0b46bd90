"""Motion of the camera, and changing light."""

import math

import numpy as np

from generators.physics import Motion

LIGHT_PERIOD_FRAMES = (20.0, 60.0)
"""Range of the period of the light, in frames."""


def pan(rng: np.random.Generator, num_frames: int, reach_px: float, speed_px_per_frame: float) -> Motion:
    """Move the camera about its rest position, along each axis on a separate sine.

    Args:
        rng: source of randomness.
        num_frames: T.
        reach_px: largest distance along an axis; amplitudes are between half of it and all of it.
        speed_px_per_frame: highest speed along an axis.

    Returns:
        Position and velocity [T, 2] of the camera.
    """
    amplitude = rng.uniform(0.5, 1, 2) * reach_px
    rate = rng.uniform(0.5, 1, 2) * speed_px_per_frame / reach_px
    angle = rate * np.arange(num_frames)[:, None] + rng.uniform(0, 2 * math.pi, 2)
    return Motion(amplitude * np.sin(angle), amplitude * rate * np.cos(angle))


def changing_light(rng: np.random.Generator, num_frames: int, strength: float) -> np.ndarray:
    """Light that varies sinusoidally with a random tint.

    Args:
        rng: source of randomness.
        num_frames: T.
        strength: largest fraction that a channel loses; each channel loses between half of it and all of it.

    Returns:
        float64 [T, 3], the remaining fraction of red, green and blue, between 1 - `strength` and 1.
    """
    taken = rng.uniform(0.5, 1, 3) * strength
    angle = 2 * math.pi * np.arange(num_frames) / rng.uniform(*LIGHT_PERIOD_FRAMES) + rng.uniform(0, 2 * math.pi)
    return 1 - taken * (0.5 - 0.5 * np.cos(angle))[:, None]
