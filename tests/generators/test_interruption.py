"""A generation in processes of its own, which is killed and continued; tests/data/sharding has every other moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_sets import small_config

from generators.writer import generate
from slotssm.data.contents import content_hash

# 105 shards of six episodes: enough to be met in the middle of them
CONFIG = small_config(num_train=600, num_val=30)
NUM_SHARDS = 105
CODE = """
import sys
from pathlib import Path
from generators import writer
from slotssm.config import RecipeData

writer.SHARD_FRAMES = 30
writer.generate(RecipeData.model_validate_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), resume=True)
"""
PATIENCE_S = 60


def num_shards(out: Path) -> int:
    return len(list(out.with_name(out.name + ".parts").glob("*.h5")))


def test_killed_and_resumed_with_other_workers_the_file_is_the_same(tmp_path: Path) -> None:
    out, whole = tmp_path / "d.h5", tmp_path / "whole.h5"
    command = [sys.executable, "-c", CODE, CONFIG.model_dump_json(), str(out), "2"]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    while num_shards(out) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert not out.exists()
    assert 5 <= num_shards(out) < NUM_SHARDS
    generate(CONFIG, out, workers=1, resume=True)
    generate(CONFIG, whole, workers=1)
    assert content_hash(out) == content_hash(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.h5", "whole.h5"]
