"""Tabletop episodes: fields, agreement of positions, depth and masks, presets, refusals."""

import numpy as np
import pytest
from slow_renderer import render_slowly

from generators.catalog import make_episode
from generators.scenes.scene_recipe import SIZES
from generators.scenes.tabletop import TABLETOP_PRESETS, TabletopRecipe, layout


def stored(recipe: TabletopRecipe, index: int, seed: int = 0) -> dict[str, np.ndarray]:
    """An episode with the types that a file has."""
    episode = make_episode(recipe, seed, "train", index)
    return {name: np.asarray(episode[name], field.dtype) for name, field in layout(recipe).items()}


def recipe_of(preset: str, **fields) -> TabletopRecipe:
    return TabletopRecipe(**TABLETOP_PRESETS[preset] | {"size_px": 48} | fields)


@pytest.mark.parametrize("preset", TABLETOP_PRESETS)
@pytest.mark.parametrize("index", range(3))
def test_masks_depth_and_positions_agree_with_each_other(preset: str, index: int) -> None:
    recipe = recipe_of(preset)
    episode = stored(recipe, index)
    for name, field in layout(recipe).items():
        assert episode[name].shape == field.shape, name
    num = int(episode["num_objects"])
    assert not episode["objects/visible"][:, num:].any()
    for t in (0, 9, 23):
        expected, far, whole = render_slowly(
            episode["camera/position"][t],
            episode["camera/rotation"][t],
            episode["camera/focal_px"][t],
            [recipe.shapes[code] for code in episode["objects/shape"][:num]],
            episode["objects/radius"][:num],
            episode["objects/world_position"][t, :num],
            episode["objects/quaternion"][t, :num],
            48,
            48,
        )
        assert np.array_equal(episode["masks"][t], expected)
        assert np.array_equal(episode["objects/unoccluded"][t, :num], whole.sum((1, 2)))
        is_seen = episode["depth"][t] > 0
        assert np.allclose(episode["depth"][t][is_seen], far[is_seen], rtol=1e-6, atol=0)
        # the formula of docs/data-format.md, from stored values alone
        camera = episode["camera/rotation"][t].astype(float)
        x, y, z = ((episode["objects/world_position"][t, :num] - episode["camera/position"][t]) @ camera).T
        focal = episode["camera/focal_px"][t]
        projected = np.stack([24 + focal * x / z, 24 + focal * y / z], axis=1)
        assert projected == pytest.approx(episode["objects/position"][t, :num], abs=1e-3)
        for n in np.flatnonzero(whole.sum((1, 2)) > 30):
            rows, columns = np.nonzero(whole[n])
            # the centre of a solid is seen inside the picture of it
            box = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
            u, v = projected[n]
            assert box[0] <= u <= box[1]
            assert box[2] <= v <= box[3]


@pytest.mark.parametrize("preset", TABLETOP_PRESETS)
def test_objects_are_seen_and_stay_on_the_table(preset: str) -> None:
    recipe, shares = recipe_of(preset), []
    for index in range(12):
        episode = stored(recipe, index)
        num = int(episode["num_objects"])
        shares.append((episode["objects/visible"][:, :num] > 0).mean())
        place = episode["objects/world_position"][:, :num]
        radius = episode["objects/radius"][:num]
        assert np.abs(place[..., :2]).max() < 3
        assert set(radius.tolist()) <= {float(np.float32(SIZES[name])) for name in recipe.sizes}
        speed = np.diff(place, axis=0)
        # motion and velocity agree, but in frames with a collision
        middle = (episode["objects/world_velocity"][1:, :num] + episode["objects/world_velocity"][:-1, :num]) / 2
        assert np.median(np.abs(speed - middle)) < 2e-3
    assert np.mean(shares) > 0.9


def test_everything_is_drawn() -> None:
    recipe = recipe_of("b", num_frames=1, size_px=16)
    found: dict[str, set[int]] = {}
    for index in range(60):
        episode = stored(recipe, index)
        num = int(episode["num_objects"])
        for name in ("shape", "color", "material", "size"):
            found.setdefault(name, set()).update(episode[f"objects/{name}"][:num].tolist())
        found.setdefault("num", set()).add(num)
    assert found == {
        "shape": set(range(4)),
        "color": set(range(11)),
        "material": {0, 1},
        "size": {0, 1, 2},
        "num": set(range(3, 9)),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"cameras": ("orbit",)},
        {"cameras": ("head",), "viewpoints": "any"},
        {"grounds": ("checker",), "ground_colors": "any"},
        {"num_lights": 2},
        {"samples_per_side": 2},
        {"size_px": 32},
        {"camera_distance": 6.5},
    ],
)
def test_a_switch_of_looks_leaves_the_motion_as_it_was(change: dict[str, object]) -> None:
    base, other = recipe_of("a"), recipe_of("a", **change)
    for index in range(2):
        before, after = stored(base, index), stored(other, index)
        for name in ("objects/world_position", "objects/quaternion", "objects/color", "objects/shape", "objects/size"):
            assert np.array_equal(before[name], after[name])
        assert before["frames"].shape != after["frames"].shape or not np.array_equal(before["frames"], after["frames"])
        if not {"cameras", "size_px", "camera_distance"} & set(change):
            assert np.array_equal(before["masks"], after["masks"])
            assert np.array_equal(before["depth"], after["depth"])


def test_a_still_camera_stands_still_and_the_others_move() -> None:
    for camera, is_still in (("still", True), ("orbit", False), ("head", False)):
        episode = stored(recipe_of("a", cameras=(camera,), size_px=16), 0)
        moved = np.abs(np.diff(episode["camera/position"], axis=0)).max(-1)
        assert (moved == 0).all() if is_still else (moved > 0).all()
        turned = np.einsum("tij,tik->tjk", episode["camera/rotation"], episode["camera/rotation"])
        assert turned == pytest.approx(np.tile(np.eye(3), (24, 1, 1)), abs=1e-6)
        assert (episode["camera/position"][:, 2] > 1).all()


def test_a_nearer_camera_sees_objects_nearer_and_larger() -> None:
    far, near = stored(recipe_of("a"), 0), stored(recipe_of("a", camera_distance=6.5), 0)
    assert np.allclose(np.linalg.norm(near["camera/position"] - far["camera/position"], axis=-1), 9.2 - 6.5)
    assert (near["masks"] > 0).mean() > 1.5 * (far["masks"] > 0).mean()
    middle = far["depth"].shape[1] // 2
    assert (far["depth"] - near["depth"])[:, middle, middle].max() == pytest.approx(9.2 - 6.5, abs=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_objects": 7, "max_objects": 6}, "min_objects 7 exceeds max_objects 6"),
        ({"min_speed": 0.4, "max_speed": 0.3}, "min_speed 0.4 exceeds max_speed 0.3"),
        ({"max_objects": 12, "sizes": ("large",)}, "do not fit on the table: at most 8"),
        ({"sizes": ("small", "small")}, "sizes has duplicates"),
        ({"size_px": 8}, "greater than or equal to 16"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabletopRecipe(**fields)


def test_an_empty_table_is_a_scene_too() -> None:
    episode = stored(TabletopRecipe(min_objects=0, max_objects=1, size_px=16, num_frames=2), 1)
    assert episode["masks"].max() <= 1
    empty = [stored(TabletopRecipe(min_objects=0, max_objects=1, size_px=16, num_frames=2), i) for i in range(12)]
    assert any(one["num_objects"] == 0 and not one["masks"].any() for one in empty)
