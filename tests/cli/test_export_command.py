"""`slotssm export`: what scripts and people see, and the page that tells how the results are read."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData

PAGE = Path(__file__).parent.parent.parent / "docs" / "using-the-data.md"
FORMS = ["webdataset", "folder", "numpy", "zarr"]


@pytest.fixture
def data(workplace):
    """The file that the page speaks of, in an empty current folder."""
    config = RecipeData(recipe=BCBRecipe(), num_train=3, num_val=2, num_test=0)
    generate(config, workplace / "data" / "bcb-earliest-80.h5", workers=1)
    return Path("data/bcb-earliest-80.h5")


def test_one_json_document_tells_what_was_written(slotssm, data):
    done = slotssm("export", data, "--to", "numpy", "--out", "out", "--split", "train", "--fields", "masks", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["path"], facts["form"], facts["num_episodes"]) == ("out", "numpy", {"train": 3})
    assert facts["num_files"] == 2
    with h5py.File(data) as file:
        assert np.array_equal(np.load("out/train/masks.npy"), file["train/masks"][...])


def test_options_choose_the_part(slotssm, data):
    done = slotssm(
        "export", data, "--to", "folder", "--episodes", "0,1-1", "--limit", 1, "--fields", "frames,objects/color"
    )
    assert done.code == 0, done.err
    assert done.out.startswith("data/bcb-earliest-80-folder  ")
    assert done.out.endswith("(train 1, val 1)\n")
    episode = Path("data/bcb-earliest-80-folder/train/000000")
    assert sorted(path.name for path in episode.iterdir()) == ["frames", "properties.json"]
    assert set(json.loads((episode / "properties.json").read_text())["objects"][0]) == {"id", "color"}
    done = slotssm("export", data, "--to", "webdataset", "--shard-mb", 0.05, "--frames-as", "png")
    assert len(list(Path("data/bcb-earliest-80-webdataset").glob("train-*.tar"))) == 3
    done = slotssm("export", data, "--to", "folder", "--force", "--frames-as", "mp4")
    assert "MP4 frames are lossy" in done.err
    assert (episode / "frames.mp4").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_dry_run_writes_nothing(slotssm, data, form):
    done = slotssm("export", data, "--to", form, "--dry-run", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["dry_run"] is True
    assert facts["num_episodes"] == {"train": 3, "val": 2}
    assert facts["stored_bytes"] > 0
    assert [path.name for path in Path("data").iterdir()] == [data.name]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ((), ("--to",)),
        (("--to", "tar"), ("--to tar", "webdataset, folder, numpy, zarr")),
        (("--to", "zarr", "--split", "test"), ("--split test", "it has train, val")),
        (("--to", "zarr", "--episodes", "3-1"), ("--episodes 3-1", "ends before it begins")),
        (("--to", "zarr", "--episodes", "some"), ("--episodes some", "a number or a range")),
        (("--to", "zarr", "--episodes", ","), ("--episodes", "for example 0-99,120")),
        (("--to", "zarr", "--episodes", "0-999999999999"), ("--episodes 0-999999999999", "--limit")),
        (("--to", "zarr", "--episodes", "2"), ("--episodes 2", "split val", "0 to 1")),
        (("--to", "zarr", "--fields", "mask"), ("--fields mask", "masks")),
        (("--to", "zarr", "--frames-as", "png"), ("--frames-as does not apply",)),
        (("--to", "webdataset", "--shard-mb", "-1"), ("--shard-mb -1", "above 0")),
        (("--to", "webdataset", "--out", "data"), ("data exists already", "--force")),
        (("--to", "webdataset", "--out", "data", "--force"), ("data is not an export",)),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(slotssm, data, arguments, fragments):
    done = slotssm("export", data, *arguments)
    assert done.code == 2, (done.code, done.err)
    assert len(done.error_lines) == 1
    assert "Traceback" not in done.err
    for fragment in fragments:
        assert fragment in done.error_lines[0]
    assert [path.name for path in Path("data").iterdir()] == [data.name]


def test_files_that_are_no_episode_files(slotssm, workplace):
    (workplace / "text.h5").write_text("hello")
    for name, message in (("absent.h5", "does not exist"), ("text.h5", "not HDF5"), (".", "is a folder")):
        done = slotssm("export", name, "--to", "numpy", "--out", "out")
        assert (done.code, len(done.error_lines)) == (2, 1)
        assert message in done.error_lines[0]
    assert [path.name for path in workplace.iterdir()] == ["text.h5"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_nothing(workplace, environment, number):
    """Ctrl-C in a terminal, which the video encoder hears too."""
    recipe = BouncingRecipe(num_frames=10, size_px=32, radii_px=(3.0, 4.0))
    generate(RecipeData(recipe=recipe, num_train=2000, num_val=0, num_test=0), workplace / "d.h5", workers=1)
    command = [sys.executable, "-m", "slotssm_cli.main", "export", "d.h5", "--to", "folder", "--frames-as", "mp4"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(workplace.glob(".d-folder.*/train/*/frames.mp4"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 3
    assert words == f"slotssm: {number.name}: the export is unfinished and nothing is kept\n"
    assert [path.name for path in workplace.iterdir()] == ["d.h5"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_reads_what_the_command_writes(slotssm, data):
    """The blocks of the page that need no line of this package, as its reader would run them."""
    for form in FORMS:
        assert slotssm("export", data, "--to", form).code == 0
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    folders = [path.name for path in Path("data").iterdir() if path.is_dir()]
    assert [sum(f"data/{name}" in block for block in blocks) for name in folders] == [1, 1, 1, 1]
    for block in blocks:
        assert "slotssm" not in block
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
