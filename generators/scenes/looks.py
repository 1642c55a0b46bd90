"""What an episode looks like: ground, lights and camera, drawn for a recipe."""

import numpy as np

from generators.scenes.scene_recipe import SceneRecipe
from generators.scenes.stage import GROUNDS, Ground, Lights, light_from
from generators.scenes.viewpoint import View, looking_at, on_sphere, swaying

AZIMUTH, ELEVATION = np.radians(-45), np.radians(34)
"""Direction of the fixed camera from the middle of the table."""
FOCAL = 1.12
"""Focal length in widths of the frame, as a lens of 36 mm on a sensor of 32 mm."""
TARGET = np.array([0.0, 0.0, 0.25])
ELEVATIONS = np.radians((26, 46))
ORBIT_RADIANS = np.radians((25, 80))
"""Range of the angle through which a circling camera moves, in either direction, during an episode."""
HEAD_DISTANCES, HEAD_ELEVATIONS = (0.85, 1.0), np.radians((13, 24))
"""Ranges of the distance, as a share of that of other cameras, and of the elevation."""
HEAD_SWAY = np.array([0.5, 0.5, 0.22])
"""Largest motion of a person's head along the axes of the world, in world units."""
GAZE_SWAY, ROLL_SWAY = np.array([0.8, 0.8, 0.3]), np.radians(4)
KEY_POWER, FILL_POWER, AMBIENT = (0.78, 0.56), 0.28, 0.42
"""Power of a single strong light, and of a strong one beside a weak one; light from everywhere."""


def draw_ground(rng: np.random.Generator, recipe: SceneRecipe) -> Ground:
    """Draw the ground's pattern and colours."""
    kind = GROUNDS.index(recipe.grounds[rng.integers(len(recipe.grounds))])
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.4)
    tints = np.array([[0.60, 0.60, 0.60], [0.42, 0.42, 0.42]])
    drawn = rng.uniform(0.2, 0.72, (2, 3))
    if recipe.ground_colors == "any":
        # muted, so that objects stand out
        tints = 0.55 * drawn + 0.45 * drawn.mean(axis=1, keepdims=True)
    # a gradient spans the table once; the fields of a checker are as wide as its period
    axis = np.array([np.cos(angle), np.sin(angle)]) / (9.0 if kind == 1 else period)
    return Ground(kind, tints, axis, 0.45 + 0.5 * tints[0])


def draw_lights(rng: np.random.Generator, recipe: SceneRecipe) -> Lights:
    """Draw the directions of one or two lights; the strong one comes from the left and behind of the fixed camera."""
    azimuth = np.radians((-105.0, 15.0)) + rng.uniform(-0.35, 0.35, 2)
    elevation = np.radians((50.0, 58.0)) + rng.uniform(-0.12, 0.12, 2)
    num = recipe.num_lights
    power = np.array([KEY_POWER[num - 1], FILL_POWER][:num])
    return Lights(light_from(azimuth[:num], elevation[:num]), power, AMBIENT)


def draw_view(rng: np.random.Generator, recipe: SceneRecipe, distance: float) -> View:
    """Draw a camera and its motion, at a distance from the middle of the table."""
    kind = recipe.cameras[rng.integers(len(recipe.cameras))]
    azimuth, elevation = AZIMUTH, ELEVATION
    drawn = rng.uniform(-np.pi, np.pi), rng.uniform(*ELEVATIONS)
    if recipe.viewpoints == "any":
        azimuth, elevation = drawn
    num, focal_px = recipe.num_frames, FOCAL * recipe.size_px
    share = np.arange(num) / max(1, num - 1) - 0.5
    if kind == "head":
        base = on_sphere(distance * rng.uniform(*HEAD_DISTANCES), np.full(1, azimuth), rng.uniform(*HEAD_ELEVATIONS))
        motion = swaying(rng, num, 7)
        # a step to the side during the episode, and small motions of head and gaze around it
        step = rng.uniform(-1.2, 1.2) * share[:, None] * np.array([-np.sin(azimuth), np.cos(azimuth), 0])
        position = base + step + HEAD_SWAY * motion[:, :3]
        return looking_at(position, TARGET + GAZE_SWAY * motion[:, 3:6], focal_px, ROLL_SWAY * motion[:, 6])
    turn = rng.uniform(*ORBIT_RADIANS) * rng.choice((-1, 1)) if kind == "orbit" else 0.0
    return looking_at(on_sphere(distance, azimuth + turn * share, elevation), TARGET, focal_px)
