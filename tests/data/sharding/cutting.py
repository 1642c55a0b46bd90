"""Work that is cut short within one process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_work import Make, small_work

from slotssm.data.sharding import write_episodes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class PowerCut(Exception):
    """Raised in the middle of the work."""


def cut_at(number: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if done == number:
            raise PowerCut

    return on_progress


def cut_short(out: Path, seed: int = 0) -> Path:
    """Leave a work after eight of its episodes."""
    with pytest.raises(PowerCut):
        write_episodes(small_work(Make(seed)), out, on_progress=cut_at(9))
    return out.with_name(out.name + ".parts")
