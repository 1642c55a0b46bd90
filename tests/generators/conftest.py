"""Fixtures of the writer's tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_sets import small_config

from generators import writer
from slotssm.data.contents import content_hash


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of six episodes of `bouncing`, so that small data sets have several."""
    monkeypatch.setattr(writer, "SHARD_FRAMES", 30)


@pytest.fixture(scope="session")
def whole_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content hash of `small_config()`, made in one go."""
    out = tmp_path_factory.mktemp("whole") / "whole.h5"
    writer.generate(small_config(), out, workers=1)
    return content_hash(out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB, where the process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)
