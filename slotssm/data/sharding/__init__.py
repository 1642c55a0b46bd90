"""The one writer of data sets, for generators and importers alike: in parallel, resumable, and complete or absent.

Shards (small episode files of consecutive episodes) are written into a folder beside the output. Complete shards are
then joined without recompression and the result is moved into place. The writer knows nothing of where episodes come
from: it is given a `Work`.
"""

from slotssm.data.sharding.processors import usable_processors
from slotssm.data.sharding.work import Contents, DamagedSourceError, ProgressCallback, Shard, Work, shard_length
from slotssm.data.sharding.writing import write_episodes

__all__ = [
    "Contents",
    "DamagedSourceError",
    "ProgressCallback",
    "Shard",
    "Work",
    "shard_length",
    "usable_processors",
    "write_episodes",
]
