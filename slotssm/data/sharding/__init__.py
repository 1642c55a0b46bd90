"""The writer of data sets for generators and importers: parallel, resumable, and with an output complete or absent.

Shards (small episode files of consecutive episodes) are written into a folder beside the output. Complete shards are
then joined without recompression, and the result is moved into place. The writer is independent of the source of the
episodes, which is described by a `Work`.
"""

from slotssm.data.sharding.processors import usable_processors
from slotssm.data.sharding.work import (
    Contents,
    DamagedSourceError,
    LeftOut,
    ProgressCallback,
    Shard,
    Work,
    shard_length,
)
from slotssm.data.sharding.writing import write_episodes, write_part

__all__ = [
    "Contents",
    "DamagedSourceError",
    "LeftOut",
    "ProgressCallback",
    "Shard",
    "Work",
    "shard_length",
    "usable_processors",
    "write_episodes",
    "write_part",
]
