"""Generation in processes of their own, which are killed or asked to stop at several moments."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from small_sets import small_config

from generators.writer import generate
from slotssm.data.contents import content_hash

# 210 shards of six episodes: enough to be met in the middle of them
CONFIG = small_config(num_train=1200, num_val=60)
NUM_SHARDS = 210
CODE = """
import sys
from pathlib import Path
from generators import writer
from slotssm.config import RecipeData
from slotssm.errors import SlotSSMError

writer.SHARD_FRAMES = 30
try:
    writer.generate(RecipeData.model_validate_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), resume=True)
except SlotSSMError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
PATIENCE_S = 60


def start(out: Path, workers: int) -> subprocess.Popen:
    """Begin or continue a generation, at the head of a process group of its own."""
    command = [sys.executable, "-c", CODE, CONFIG.model_dump_json(), str(out), str(workers)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def num_shards(out: Path) -> int:
    return len(list(out.with_name(out.name + ".parts").glob("*.h5")))


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and last words."""
    _, words = process.communicate(timeout=PATIENCE_S)
    return process.returncode, words


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_at_several_moments_and_resumed_the_file_is_the_same(tmp_path: Path) -> None:
    out, whole = tmp_path / "d.h5", tmp_path / "whole.h5"
    moments: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: num_shards(out) >= 1),
        (2, lambda: num_shards(out) >= 50),
        (1, lambda: num_shards(out) >= 120),
        # all shards are there and the file is being joined
        (2, (out.with_name("d.h5.parts") / "joined.partial").exists),
    ]
    kept = 0
    for workers, moment in moments:
        process = start(out, workers)
        wait_until(moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        assert not out.exists()
        assert num_shards(out) >= kept
        kept = num_shards(out)
    assert kept == NUM_SHARDS
    generate(CONFIG, out, workers=1, resume=True)
    generate(CONFIG, whole, workers=1)
    assert content_hash(out) == content_hash(whole)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    process = start(out, workers=2)
    wait_until(lambda: num_shards(out) >= 20, process)
    process.kill()
    finish(process)
    deadline = time.monotonic() + 10
    while group_is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_is_alive(process.pid)
    assert num_shards(out) < NUM_SHARDS


def test_sigterm_to_the_parent_stops_resumable(tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / f"{workers}.h5"
        process = start(out, workers)
        wait_until(lambda out=out: num_shards(out) >= 20, process)
        process.send_signal(signal.SIGTERM)
        code, words = finish(process)
        assert code == 3
        assert words.startswith("SIGTERM: ")
        assert words.endswith(" of 1260 episodes are kept; `resume` continues\n")
        assert words.count("\n") == 1
        assert not out.exists()
        # what it says is kept is kept, and nothing half-written lies beside it
        assert int(words.split()[1]) <= 6 * num_shards(out)
        assert not list(out.with_name(out.name + ".parts").glob("*.partial"))


def test_sigterm_and_ctrl_c_to_the_whole_group_stop_resumable(tmp_path: Path) -> None:
    """Schedulers and terminals signal the workers too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        out = tmp_path / f"{number.name}.h5"
        process = start(out, workers=2)
        wait_until(lambda out=out: num_shards(out) >= 20, process)
        os.killpg(process.pid, number)
        code, words = finish(process)
        assert (code, words.count("\n")) == (3, 1), words
        assert words.startswith(f"{number.name}: ")
        assert not out.exists()
        assert num_shards(out) >= 20
