"""The specification of a data set is the same from its recipe and from its file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from pixel_colors import distinct_colors

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from generators.scenes.snitch import SnitchRecipe
from generators.scenes.tabletop import TabletopRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import PICTURE, EpisodeFile, EpisodeWriter, Field, categorical, label, numeric
from slotssm.data.generator import generator_of
from slotssm.data.spec import FieldSpec, read_spec, spec_from_layout
from slotssm.errors import InputError
from slotssm.registry import GENERATORS

RECIPES = {
    "bcb": BCBRecipe(num_frames=3, patches_per_side=2, size_px=32, num_balls=2, num_colors=3, rule="frequent"),
    "bouncing": BouncingRecipe(num_frames=4, size_px=32, max_objects=4, radii_px=(2.0, 3.0)),
    "bouncing, in depth": BouncingRecipe(num_frames=4, size_px=64, contact="occlude"),
    "bouncing, all switches": BouncingRecipe(
        num_frames=3,
        size_px=32,
        min_objects=1,
        max_objects=2,
        radii_px=(4.0, 5.0),
        distinct_colors=True,
        backgrounds=("noise",),
        textures=("stripes", "plain"),
        lighting=0.3,
        outside_px=20,
        camera_px=3,
    ),
    "tabletop": TabletopRecipe(num_frames=3, size_px=16, max_objects=3),
    "snitch": SnitchRecipe(num_frames=8, size_px=16, min_objects=2, max_objects=3),
}
CAMERA = {
    "camera/position": Field(("time", "xyz"), (2, 3), "float32", attrs=numeric("world units")),
    "camera/rotation": Field(("time", "xyz", "axis"), (2, 3, 3), "float32"),
    "camera/focal_px": Field(("time",), (2,), "float32", attrs=numeric("px")),
}
RENDERED = {
    "frames": Field((*PICTURE, "channel"), (2, 6, 10, 3), "uint8", image=True),
    "depth": Field(
        PICTURE, (2, 6, 10), "float32", image=True, attrs=numeric("m") | {"range": (0.5, 9.0), "invalid": 0}
    ),
    "objects/color": Field(("object",), (4,), "uint8", attrs=categorical(["red", "blue"])),
    "snitch_cell": Field((), (), "uint8", attrs=label(36)),
}


def write(path: Path, fields: dict[str, Field], *splits: str, **attrs: object) -> Path:
    with EpisodeWriter(path, attrs, fields, dict.fromkeys(splits or ("train",), 2)):
        return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_and_file_give_the_same_specification(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    generate(RecipeData(recipe=recipe, num_train=2, num_val=1, num_test=0), tmp_path / "d.h5", workers=1)
    generator = generator_of(recipe)
    expected = spec_from_layout(generator.layout(), generator.attributes())
    with EpisodeFile(tmp_path / "d.h5") as episodes:
        assert read_spec(episodes) == read_spec(episodes, "val") == expected
    assert (expected.num_frames, expected.height, expected.width, expected.num_channels) == (
        *(recipe.num_frames, recipe.size_px, recipe.size_px, 3),
    )
    assert expected.fields["objects/position"].dims == ("time", "object", "xy")


def test_every_kind_of_recipe_is_tried() -> None:
    assert {recipe.kind for recipe in RECIPES.values()} == set(GENERATORS.entries())


@pytest.mark.parametrize("name", RECIPES)
def test_every_pixel_has_a_colour_of_the_palette_if_there_is_one(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    generate(RecipeData(recipe=recipe, num_train=3, num_val=0, num_test=0), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5") as file, EpisodeFile(tmp_path / "d.h5") as episodes:
        spec = read_spec(episodes)
        assert (spec.rule, spec.patches_per_side) == (("frequent", 2) if recipe.kind == "bcb" else ("", None))
        if name in ("bouncing, all switches", "tabletop", "snitch"):
            assert spec.palette == ()
            assert "palette" not in file.attrs
            return
        colors = {tuple(color) for color in distinct_colors(file["train/frames"][...]).tolist()}
        assert len(colors) > 2
        assert colors <= set(spec.palette)
        assert file.attrs["palette"].dtype == np.uint8
        assert file.attrs["palette"].tolist() == [list(color) for color in spec.palette]


def test_depth_camera_and_labels(tmp_path: Path) -> None:
    with EpisodeFile(write(tmp_path / "d.h5", RENDERED | CAMERA)) as episodes:
        spec = read_spec(episodes)
    assert spec == spec_from_layout(RENDERED | CAMERA, {})
    assert (spec.num_frames, spec.height, spec.width, spec.num_objects) == (2, 6, 10, 4)
    assert spec.depth == FieldSpec(
        dims=PICTURE, shape=(2, 6, 10), dtype="float32", kind="numeric", unit="m", range=(0.5, 9.0), invalid="0"
    )
    assert spec.has_camera
    assert spec.labels == {"snitch_cell": 36}
    assert (spec.fields["objects/color"].categories, spec.fields["objects/color"].num_classes) == (("red", "blue"), 2)


def test_absent_parts_are_none() -> None:
    spec = spec_from_layout({"masks": Field(PICTURE, (2, 6, 10), "uint8", image=True)}, {})
    assert (spec.num_frames, spec.height, spec.width, spec.num_objects) == (2, 6, 10, None)
    assert (spec.depth, spec.has_camera, spec.labels, spec.palette) == (None, False, {}, ())
    without = {name: field for name, field in (RENDERED | CAMERA).items() if name != "camera/rotation"}
    assert not spec_from_layout(without, {}).has_camera


def test_fields_that_splits_do_not_share_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "d.h5", RENDERED, "train", "test")
    with h5py.File(path, "r+") as file:
        del file["test/snitch_cell"]
        file["test/objects/color"].attrs["categories"] = '["red", "green"]'
    with EpisodeFile(path) as episodes:
        assert set(read_spec(episodes).fields) == {"frames", "depth"}
        assert set(read_spec(episodes, "train").fields) == set(RENDERED)
        with pytest.raises(InputError, match="has no split 'val'; it has train, test"):
            read_spec(episodes, "val")


def test_without_pictures_there_is_no_specification(tmp_path: Path) -> None:
    fields = {"objects/color": RENDERED["objects/color"]}
    with pytest.raises(InputError, match="this layout has neither frames nor masks"):
        spec_from_layout(fields, {})
