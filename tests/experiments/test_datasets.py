"""A preset's own data: made once, found again, also by several runs that start together."""

import subprocess
import sys

import pytest

from generators.bcb import BCBRecipe
from generators.writer import generate
from slotssm.config import FileRecipe, RecipeData
from slotssm.data.contents import content_hash
from slotssm.data.episodes import EpisodeWriter, standard_layout
from slotssm.documents import override
from slotssm.errors import BusyError, InputError
from slotssm.experiments.datasets import ensure_own_data, own_data_path, recorded_data
from slotssm.experiments.presets import preset
from slotssm.files import exclusive


def test_own_data_is_made_once(tmp_path):
    config = preset("tiny-oc")
    path = ensure_own_data(config, tmp_path)
    written = path.stat().st_mtime_ns
    assert ensure_own_data(config, tmp_path).stat().st_mtime_ns == written
    assert recorded_data(path) == config.data


def test_the_name_follows_everything_that_decides_the_content(tmp_path):
    config = preset("tiny-oc")
    others = [{"seed": 1}, {"num_train": 65}, {"recipe": {"size_px": 32}}]
    paths = {own_data_path(override(config, {"data": change}, "test")) for change in others}
    assert len(paths | {own_data_path(config)}) == 4
    # what does not concern the data does not move it
    assert own_data_path(override(config, {"train": {"num_steps": 7}}, "test")) == own_data_path(config)


def test_runs_that_start_together_share_one_generation(tmp_path, environment):
    code = (
        "import sys; from pathlib import Path\n"
        "from slotssm.experiments.datasets import ensure_own_data\n"
        "from slotssm.experiments.presets import preset\n"
        "if __name__ == '__main__': ensure_own_data(preset('cpu-oc'), Path(sys.argv[1]))\n"
    )
    script = tmp_path / "make.py"
    script.write_text(code)
    folder = tmp_path / "data"
    both = [subprocess.Popen([sys.executable, str(script), str(folder)], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    alone = ensure_own_data(preset("cpu-oc"), tmp_path / "alone")
    assert content_hash(own_data_path(preset("cpu-oc"), folder)) == content_hash(alone)
    assert [path.name for path in folder.iterdir()] == [alone.name]


def test_a_lock_is_exclusive_and_ends(tmp_path):
    refusal = pytest.raises(BusyError, match="in use by another process")
    with exclusive(tmp_path / "lock"), refusal, exclusive(tmp_path / "lock"):
        pass
    with exclusive(tmp_path / "lock"):
        pass


def from_elsewhere(path, height, width):
    with EpisodeWriter(path, {"generator": "movi"}, standard_layout(2, height, width, 1), {"train": 3, "test": 1}):
        return path


def test_files_from_elsewhere_are_known_by_their_shape(tmp_path):
    data = recorded_data(from_elsewhere(tmp_path / "a.h5", 8, 8))
    assert data == RecipeData(
        recipe=FileRecipe(source="movi", num_frames=2, size_px=8), num_train=3, num_val=0, num_test=1
    )
    config = override(preset("tiny-oc"), {"data": data.model_dump(mode="json"), "train": {"clip_len": 2}}, "test")
    with pytest.raises(InputError, match=r"tiny-oc cannot be generated: pass their file with --data"):
        ensure_own_data(config, tmp_path)
    with pytest.raises(InputError, match=r"data\.recipe\.kind 'file' cannot be generated"):
        generate(data, tmp_path / "b.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_frames_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"frames of 16 x 8 px; models read square ones: import them with --size"):
        recorded_data(from_elsewhere(tmp_path / "a.h5", 8, 16))


def test_recorded_recipe_is_typed(tmp_path):
    path = ensure_own_data(preset("tiny-bcb"), tmp_path)
    assert isinstance(recorded_data(path).recipe, BCBRecipe)
