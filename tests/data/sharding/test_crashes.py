"""Writing that is stopped before each of its file operations, or killed at random: nothing is lost or half-written."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_work import Make, small_work

from slotssm.data.contents import content_hash
from slotssm.data.sharding import write_episodes

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and signalled")


@pytest.mark.parametrize(("number", "force"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGTERM, True)])
def test_stopped_before_any_of_its_file_operations(tmp_path: Path, number: signal.Signals, force: bool) -> None:
    command = [sys.executable, str(HERE / "crash.py"), str(tmp_path), number.name, str(int(force))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # two shards are written, renamed, read and removed, the plan and the joined file come with them
    assert len(found) > 20, done.stderr
    before = "old" if force else "absent"
    for moment in found:
        assert moment["after"] in (before, "new"), found
        assert (moment["repaired"], moment["rest"]) == ("new", ["d.h5"]), moment
        assert moment["is_new"] == (moment["after"] != "new"), moment
    if number == signal.SIGKILL:
        assert {moment["code"] for moment in found} == {-signal.SIGKILL}
    else:
        # either finished, or interrupted and resumable; what is finished says so
        assert {moment["code"] for moment in found} == {0, 3}
        assert all((moment["code"] == 0) == (moment["after"] == "new") for moment in found), found
    # the last operations are cleaning up
    assert [moment["after"] for moment in found][-3:] == ["new"] * 3


def test_killed_at_random_and_resumed_the_content_is_the_same(tmp_path: Path) -> None:
    out, whole = tmp_path / "d.h5", tmp_path / "whole.h5"
    sizes = {"num_train": 90, "num_val": 9, "size": 3}
    work = {**sizes, "workers": 2}
    settings = {"out": str(out), "make": {"pause_s": 0.005}, "work": work, "how": {"resume": True}}
    rng = random.Random(0)
    parts, kills, kept = tmp_path / "d.h5.parts", 0, 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "small_work.py"), json.dumps(settings)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while len(list(parts.glob("*.h5"))) <= kept and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        # the process alone, or its workers too
        kill = rng.choice([os.kill, os.killpg])
        kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert len(list(parts.glob("*.h5"))) >= kept
        kept = len(list(parts.glob("*.h5")))
        if out.exists():
            break
    assert kills >= 2
    write_episodes(small_work(Make(), **sizes), out, resume=True)
    write_episodes(small_work(Make(), **sizes), whole)
    assert content_hash(out) == content_hash(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.h5", "whole.h5"]
