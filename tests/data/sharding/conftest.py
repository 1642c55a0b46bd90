"""Content of the small data set, made in one go."""

import pytest
from small_work import Make, small_work

from slotssm.data.contents import content_hash
from slotssm.data.sharding import write_episodes


@pytest.fixture(scope="session")
def hashes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Content of the small data set by seed."""
    folder = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        write_episodes(small_work(Make(seed)), folder / f"{seed}.h5")
    return {seed: content_hash(folder / f"{seed}.h5") for seed in (0, 1)}
