"""A data set in parts, each made by a process of its own: the same bytes as from one."""

import subprocess
import sys

import pytest

from generators.writer import generate, generate_part
from slotssm.config import RecipeData
from slotssm.data.sharding.parts import LOCK, parts_folder
from slotssm.documents import load
from slotssm.errors import BusyError, InputError

RECIPE = {"kind": "bouncing", "num_frames": 1000, "size_px": 24, "radii_px": [2, 3]}
COUNTS = {"num_train": 11, "num_val": 3, "num_test": 2}


def config(seed=0, **counts):
    return load(RecipeData, {"recipe": RECIPE, "seed": seed, **COUNTS, **counts}, "test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "d.h5"
    generate(config(), out, workers=1)
    return out.read_bytes()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_join_to_the_same_bytes(tmp_path, whole, order):
    out = tmp_path / "d.h5"
    made = [generate_part(config(), out, (number, 3), workers=1) for number in order]
    assert sum(made) == 16
    assert max(made) < 16
    assert not out.exists()
    progress = []
    assert generate(config(), out, workers=1, on_progress=lambda done, total: progress.append(done)).is_new
    # nothing is left to make
    assert progress == [16]
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["d.h5"]


def test_a_part_that_is_missing_is_made_when_the_others_are_joined(tmp_path, whole):
    out = tmp_path / "d.h5"
    generate_part(config(), out, (2, 2), workers=1)
    generate(config(), out, workers=1)
    assert out.read_bytes() == whole


def test_parts_can_be_made_at_the_same_time_and_twice(tmp_path, whole):
    out = tmp_path / "d.h5"
    code = (
        "import sys; from pathlib import Path; from generators.writer import generate_part\n"
        "from slotssm.config import RecipeData; from slotssm.documents import load\n"
        f"config = load(RecipeData, {dict(recipe=RECIPE, seed=0, **COUNTS)!r}, 'test')\n"
        "generate_part(config, Path(sys.argv[1]), (int(sys.argv[2]), 2), workers=1)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(out), str(number)]) for number in (1, 2)]
    assert [process.wait() for process in running] == [0, 0]
    generate_part(config(), out, (1, 2), workers=1)
    generate(config(), out, workers=1)
    assert out.read_bytes() == whole


def test_parts_and_the_joining_process_notice_each_other(tmp_path):
    out = tmp_path / "d.h5"
    generate_part(config(), out, (1, 2), workers=1)
    folder = parts_folder(out)
    # as if another process held the locks
    holder = "import sys, time; from pathlib import Path; from slotssm.files import exclusive\n"
    holder += "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    for name, call, message in [
        ("part-2-of-2.lock", lambda: generate(config(), out, workers=1), "another process is writing part-2-of-2"),
        ("part-2-of-2.lock", lambda: generate_part(config(), out, (2, 2)), "is in use by another process"),
        (LOCK, lambda: generate_part(config(), out, (2, 2)), "which writes all of it"),
    ]:
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(folder / name)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match=message):
                call()
        finally:
            process.kill()
            process.communicate()
    assert not out.exists()


def test_parts_of_another_work_are_refused(tmp_path):
    out = tmp_path / "d.h5"
    generate_part(config(), out, (1, 2), workers=1)
    with pytest.raises(InputError, match="was started with other settings"):
        generate_part(config(seed=1), out, (2, 2), workers=1)
    with pytest.raises(InputError, match="was started with other settings"):
        generate(config(seed=1), out, workers=1)
    with pytest.raises(InputError, match="the parts are 1/2 to 2/2"):
        generate_part(config(), out, (3, 2), workers=1)


def test_a_file_that_exists_is_not_replaced_by_a_part(tmp_path):
    out = tmp_path / "d.h5"
    out.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        generate_part(config(), out, (1, 2), workers=1)
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["d.h5"]


def test_a_generation_that_was_interrupted_still_asks(tmp_path):
    out = tmp_path / "d.h5"
    generate_part(config(), out, (1, 2), workers=1)
    (parts_folder(out) / "part-1-of-2.lock").unlink()
    with pytest.raises(InputError, match="holds an unfinished generation"):
        generate(config(), out, workers=1)
    generate(config(), out, workers=1, resume=True)
    assert out.exists()
