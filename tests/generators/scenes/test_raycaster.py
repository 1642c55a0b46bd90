"""Masks and depth equal a slow renderer's; shadows and colours behave as light does."""

import math

import numpy as np
import pytest
from slow_renderer import render_slowly

from generators.scenes.raycaster import render
from generators.scenes.sight import FARTHEST
from generators.scenes.solids import SHAPES, half_height
from generators.scenes.stage import Ground, Lights, Scene, Solids, light_from, matrices, rest_height, stored_solids
from generators.scenes.viewpoint import looking_at, on_sphere

GREY = Ground(0, np.full((2, 3), 0.6), np.zeros(2), np.full(3, 0.9))
SUN = Lights(light_from(np.array([0.3]), np.array([0.9])), np.array([0.6]), 0.4)
DARK = Lights(np.zeros((0, 3)), np.zeros(0), 0.5)


def crowd(seed: int, num: int = 6, num_frames: int = 3, is_tilted: bool = True) -> Solids:
    """Random solids that overlap each other in the picture, in all positions."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=(num_frames, num, 4))
    if not is_tilted:
        quaternion[..., 1:3] = 0
    position = rng.uniform((-1.5, -1.5, 0.8), (1.5, 1.5, 2), (num_frames, num, 3))
    radius = rng.uniform(0.15, 0.8, num)
    material = rng.integers(2, size=num)
    shape = rng.permutation(np.arange(num) % len(SHAPES))
    return stored_solids(Solids(shape, radius, material, rng.random((num, 3)), position, quaternion))


def cameras(seed: int, num_frames: int, focal_px: float):
    rng = np.random.default_rng(seed)
    position = on_sphere(
        rng.uniform(4, 9, num_frames), rng.uniform(0, 7, num_frames), rng.uniform(0.1, 1.4, num_frames)
    )
    return looking_at(position, rng.uniform(-0.5, 0.5, (num_frames, 3)), focal_px, rng.uniform(-1, 1, num_frames))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (31, 52)])
@pytest.mark.parametrize("seed", range(12))
def test_masks_and_depth_equal_the_slow_renderer(seed: int, height: int, width: int) -> None:
    solids = crowd(seed, is_tilted=seed % 3 > 0)
    view = cameras(seed, 3, 50.0)
    _, masks, depth, visible, unoccluded = render(Scene(solids, view, GREY, SUN), height, width)
    for t in range(3):
        expected, far, whole = render_slowly(
            view.position[t],
            view.rotation[t],
            view.focal_px[t],
            [SHAPES[code] for code in solids.shape],
            solids.radius,
            solids.position[t],
            solids.quaternion[t],
            height,
            width,
        )
        assert np.array_equal(masks[t], expected)
        assert np.array_equal(unoccluded[t], whole.sum((1, 2)))
        assert np.array_equal(visible[t], np.bincount(expected.ravel(), minlength=7)[1:])
        is_seen = (expected > 0) | (far < FARTHEST)
        assert np.allclose(depth[t][is_seen], far[is_seen], rtol=2e-7, atol=0)
        assert not depth[t][~is_seen].any()
    assert (unoccluded > visible).any(), "nothing hides anything: the test is too easy"


def test_ground_is_shown_to_the_horizon_and_no_further() -> None:
    level = looking_at(np.array([[5.0, 0, 1.0]]), np.array([0, 0, 1.0]), 40.0)
    nothing = Solids(*(np.zeros(0, np.int64), np.zeros(0)), np.zeros(0, np.int64), np.zeros((0, 3)), *_no_motion())
    frames, _, depth, _, _ = render(Scene(nothing, level, GREY, SUN), 40, 40)
    assert not depth[0, :20].any()
    assert (depth[0, 20:] > 0).all()
    assert depth[0, 39, 0] == pytest.approx(40 / 19.5)
    assert (frames[0, :20] == round(0.9 * 255)).all()


def _no_motion() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, 0, 3)), np.zeros((1, 0, 4))


def lone(shape: str, radius: float, material: int = 0, position=(0.0, 0.0, None), quaternion=(1.0, 0, 0, 0)) -> Solids:
    code = np.array([SHAPES.index(shape)])
    turn = np.array([[quaternion]], float)
    height = rest_height(code, np.array([radius]), matrices(turn[0]))[0]
    place = np.array([[[position[0], position[1], height if position[2] is None else position[2]]]])
    return stored_solids(Solids(code, np.array([radius]), np.array([material]), np.full((1, 3), 0.5), place, turn))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quaternion", [(1, 0, 0, 0), (0.8, 0.4, 0.2, 0.4), (0, 1, 0, 0), (0.7, 0, 0.7, 0)])
def test_at_rest_height_a_solid_touches_the_table_and_does_not_sink_in(shape: str, quaternion) -> None:
    solids = lone(shape, 0.6, quaternion=quaternion)
    # seen level from afar, from the height of the table
    view = looking_at(np.array([[400.0, 0, 1e-3]]), np.array([0, 0, 1e-3]), 80000.0)
    _, masks, _, _, _ = render(Scene(solids, view, GREY, SUN), 400, 400)
    rows = np.flatnonzero(masks[0].any(1))
    # 200 pixels a unit; the table is at row 200
    assert abs(rows.max() - 199.5) <= 1.5


@pytest.mark.parametrize("shape", SHAPES)
def test_half_height_is_that_of_the_upright_solid(shape: str) -> None:
    code = np.array([SHAPES.index(shape)])
    upright = rest_height(code, np.array([0.7]), np.eye(3)[None])
    assert half_height(code, np.array([0.7])) == pytest.approx(upright)


def test_shadow_lies_where_the_light_cannot_reach() -> None:
    """A sphere's shadow on the table is an ellipse of known place and axes."""
    radius, direction = 0.5, SUN.direction[0]
    solids = lone("sphere", radius, position=(0, 0, 1.5))
    view = looking_at(np.array([[0.0, -0.01, 30.0]]), np.zeros(3), 600.0)
    frames, masks, depth, _, _ = render(Scene(solids, view, GREY, SUN), 160, 160)
    bare = render(Scene(lone("sphere", radius, position=(90, 90, 1.5)), view, GREY, SUN), 160, 160)[0]
    is_dark = (frames[0] != bare[0]).any(-1) & (masks[0] == 0)
    rows, columns = np.mgrid[:160, :160] + 0.5
    inside = np.stack([(columns - 80) / 600, (rows - 80) / 600, np.ones((160, 160))], -1) * depth[0][..., None]
    world = inside @ view.rotation[0].T + view.position[0]
    # the distance of the line to the light from the sphere's centre
    gap = np.linalg.norm(np.cross(world - [0, 0, 1.5], direction), axis=-1)
    on_ground = masks[0] == 0
    assert is_dark.sum() > 100
    assert np.array_equal(is_dark[on_ground], (gap < radius)[on_ground])


def test_two_lights_make_two_shadows_and_a_darker_one_where_they_meet() -> None:
    lights = Lights(light_from(np.array([0.0, 1.2]), np.array([0.8, 0.8])), np.array([0.4, 0.4]), 0.3)
    view = looking_at(np.array([[0.0, -0.01, 30.0]]), np.zeros(3), 600.0)
    frames, masks, _, _, _ = render(Scene(lone("cube", 0.6), view, GREY, lights), 160, 160)
    levels = np.unique(frames[0][masks[0] == 0][:, 0])
    ground = 0.6 * 255 / (1 + (30 / 45) ** 2) + 0.9 * 255 * (1 - 1 / (1 + (30 / 45) ** 2))
    lit = ground - (1 - 0.3 - 2 * 0.4 * math.sin(0.8)) * 0.6 * 255 / (1 + (30 / 45) ** 2)
    steps = 0.4 * math.sin(0.8) * 0.6 * 255 / (1 + (30 / 45) ** 2)
    wanted = [lit - 2 * steps, lit - steps, lit]
    assert len(levels) <= 9, "depth varies little from above, so levels are three, rounded"
    for level in wanted:
        assert abs(levels - level).min() <= 1.5


def test_an_object_is_darker_in_the_shadow_of_another() -> None:
    pair = Solids(
        *(np.array([1, 0]), np.array([0.5, 0.6]), np.array([0, 0]), np.full((2, 3), 0.5)),
        np.array([[[0, 0, 2.5], [0, 0, 0.4]]]),
        np.tile([1.0, 0, 0, 0], (1, 2, 1)),
    )
    above = Lights(np.array([[0, 0, 1.0]]), np.array([0.6]), 0.4)
    view = looking_at(np.array([[3.0, -8, 4]]), np.zeros(3), 100.0)
    frames, masks, _, _, _ = render(Scene(pair, view, GREY, above), 96, 96)
    alone, alone_masks, _, _, _ = render(Scene(_only(pair, 1), view, GREY, above), 96, 96)
    top = (masks[0] == 2) & (alone_masks[0] == 1) & (alone[0, ..., 0] > 120)
    assert top.sum() > 20
    assert (frames[0][top] < alone[0][top]).all(axis=-1).mean() > 0.5


def _only(solids: Solids, n: int) -> Solids:
    fields = (solids.shape, solids.radius, solids.material, solids.rgb)
    return Solids(
        *(field[n : n + 1] for field in fields), solids.position[:, n : n + 1], solids.quaternion[:, n : n + 1]
    )


def test_metal_shines_and_rubber_does_not() -> None:
    view = looking_at(np.array([[6.0, 0, 4]]), np.array([0, 0, 0.5]), 150.0)
    brightest = [
        render(Scene(lone("sphere", 0.6, material), view, GREY, SUN), 64, 64)[0].max(initial=0, where=_where(material))
        for material in (0, 1)
    ]
    assert brightest[0] < 200 < brightest[1]


def _where(material: int) -> np.ndarray:
    view = looking_at(np.array([[6.0, 0, 4]]), np.array([0, 0, 0.5]), 150.0)
    masks = render(Scene(lone("sphere", 0.6, material), view, GREY, SUN), 64, 64)[1]
    return np.broadcast_to((masks > 0)[..., None], (1, 64, 64, 3))


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_grounds_show_their_pattern(kind: int) -> None:
    ground = Ground(kind, np.array([[0.2] * 3, [0.8] * 3]), np.array([0.25, 0.0]), np.full(3, 0.9))
    view = looking_at(np.array([[0.0, -0.01, 10.0]]), np.zeros(3), 100.0)
    nothing = Solids(*(np.zeros(0, np.int64), np.zeros(0)), np.zeros(0, np.int64), np.zeros((0, 3)), *_no_motion())
    above = Lights(np.array([[0, 0, 1.0]]), np.array([0.6]), 0.4)
    frame = render(Scene(nothing, view, ground, above), 80, 80)[0][0, ..., 0].astype(int)
    if kind == 0:
        assert np.ptp(frame) <= 2
    elif kind == 1:
        # from -4 to 4 units across; the pattern runs from 0 to 1 in between -2 and 2
        assert frame[40, 5] < frame[40, 30] < frame[40, 50] < frame[40, 75]
    else:
        # fields of four units: column and row 40 are edges
        assert frame[35, 35] == frame[45, 45] != frame[35, 45] == frame[45, 35]


@pytest.mark.parametrize("samples", [2, 3])
def test_more_rays_smooth_the_edges_only(samples: int) -> None:
    solids, view = crowd(3), cameras(3, 3, 50.0)
    single = render(Scene(solids, view, GREY, SUN), 48, 48)
    smooth = render(Scene(solids, view, GREY, SUN, samples), 48, 48)
    for ours, theirs in zip(single[1:], smooth[1:], strict=True):
        assert np.array_equal(ours, theirs)
    is_other = (single[0] != smooth[0]).any(-1)
    assert 0 < is_other.mean() < 0.5
    # the mean of many rays is between the colours around it, give or take their own texture
    large = render(Scene(solids, _sharper(view, 8), GREY, SUN), 8 * 48, 8 * 48)[0].astype(float)
    mean = large.reshape(3, 48, 8, 48, 8, 3).mean((2, 4))
    assert np.abs(smooth[0] - mean).mean() < 0.5 * np.abs(single[0] - mean).mean()


def _sharper(view, factor: int):
    return type(view)(view.position, view.rotation, view.focal_px * factor)


def test_no_light_leaves_ambient_light_without_shadows() -> None:
    view = cameras(1, 3, 50.0)
    frames, masks, _, _, _ = render(Scene(crowd(1), view, GREY, DARK), 48, 48)
    assert frames[masks == 0].min() > 60
