"""Memory of the loader: bounded by its settings, whatever the number of episodes."""

import json
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

from slotssm.data.clips import Clips, Phase
from slotssm.data.loader import Loader

FRAMES, CHUNK_FRAMES, SIZE, SEGMENTS, BATCH = 300, 150, 64, 50, 4
VIDEO_BYTES = FRAMES * SIZE * SIZE * 3
CATER_EPISODES = 5500


def black(path, num_episodes: int):
    """Black videos of the size of CATER's, whose chunks are all there and take little space."""
    shape, chunk = (num_episodes, FRAMES, SIZE, SIZE, 3), (1, CHUNK_FRAMES, SIZE, SIZE, 3)
    packed = zlib.compress(bytes(CHUNK_FRAMES * SIZE * SIZE * 3), 9)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "slotssm-episodes", "format_version": 2})
        frames = file.create_dataset("train/frames", shape, np.uint8, chunks=chunk, compression=9)
        for episode in range(num_episodes):
            for first in range(0, FRAMES, CHUNK_FRAMES):
                frames.id.write_direct_chunk((episode, first, 0, 0, 0), packed)
        frames.attrs["dims"] = json.dumps(["episode", "time", "height", "width", "channel"])
        cells = file.create_dataset("train/snitch_cell", data=np.arange(num_episodes) % 36, dtype=np.uint8)
        cells.attrs.update({"dims": json.dumps(["episode"]), "num_classes": 36})
    return path


def peak_bytes(path, workers: int) -> int:
    """The most memory that is held while two batches are made, without what the import of modules takes."""
    tracemalloc.start()
    try:
        options = {"phases": [Phase(BATCH, Clips.segments(SEGMENTS))], "seed": 0, "workers": workers}
        with Loader(path, "train", ("frames", "snitch_cell"), cache_bytes=1 << 20, prefetch=1, **options) as loader:
            batches = loader.batches()
            for _ in range(2):
                _, batch = next(batches)
                assert batch["frames"].shape == (BATCH, SEGMENTS, SIZE, SIZE, 3)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path, workers):
    few = black(tmp_path / "few.h5", 20)
    peak_bytes(few, workers)
    small = peak_bytes(few, workers)
    large = peak_bytes(black(tmp_path / "many.h5", CATER_EPISODES), workers)
    # an episode costs the places of its chunks, its label and its turn in the epoch, not its video
    assert large - small < CATER_EPISODES * 1024 < VIDEO_BYTES * 2
    assert large < 16 * BATCH * SEGMENTS * SIZE * SIZE * 3
