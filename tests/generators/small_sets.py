"""Small data sets, and a generation that is cut short."""

from pathlib import Path

import pytest

from generators import writer
from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from generators.scenes.snitch import SnitchRecipe
from generators.scenes.tabletop import TabletopRecipe
from slotssm.config import RecipeData

RECIPES = {
    "bcb": BCBRecipe(num_frames=3, size_px=32, num_balls=2, radius_px=4.0),
    "bouncing": BouncingRecipe(num_frames=5, size_px=24, min_objects=1, max_objects=3, radii_px=(2.0, 3.0)),
    "tabletop": TabletopRecipe(num_frames=3, size_px=16, max_objects=3),
    "snitch": SnitchRecipe(num_frames=12, size_px=16, min_objects=3, max_objects=4, min_cones=1, slot_frames=6),
}


class PowerCut(Exception):
    """Raised in the middle of a generation."""


def small_config(kind: str = "bouncing", **counts: int) -> RecipeData:
    return RecipeData(recipe=RECIPES[kind], seed=3, **{"num_train": 40, "num_val": 7, "num_test": 0, **counts})


def cut_short(config: RecipeData, out: Path, num_shards: int) -> Path:
    """Leave a generation after some of its shards; returns the folder of parts."""
    parts = out.with_name(out.name + ".parts")

    def cut(done: int, total: int) -> None:
        if len(list(parts.glob("*.h5"))) >= num_shards:
            raise PowerCut

    with pytest.raises(PowerCut):
        writer.generate(config, out, workers=1, on_progress=cut)
    return parts
