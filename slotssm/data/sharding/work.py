"""What is to be written: the plan that decides the content, and the function that makes the episodes of a shard."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slotssm.data.episodes import Episode, EpisodeFile, Layout
from slotssm.errors import InputError

SHARD_BYTES = 64 << 20
"""Uncompressed bytes of a shard, roughly: what a process keeps in memory."""

ProgressCallback = Callable[[int, int], None]
"""Called with the episodes done and the episodes in all."""


class DamagedSourceError(InputError):
    """The source of the episodes, not the output, is at fault: nothing that was written from it is kept."""


@dataclass(frozen=True)
class Shard:
    """Consecutive episodes of one split."""

    split: str
    first: int
    count: int

    @property
    def file_name(self) -> str:
        """Name inside the folder of parts."""
        return f"{self.split}-{self.first:08d}-{self.count}.h5"


MakeEpisodes = Callable[[Shard], Iterable[Episode]]
"""Makes the episodes of a shard in their order, lazily where that matters to memory or to interruption."""


@dataclass(frozen=True)
class Contents:
    """What the file will hold.

    Attributes:
        layout: fields of every split.
        attrs: root attributes of the finished file.
        make: makes the episodes of a shard; for several workers it must be picklable, since they are spawned.
        shard_episodes: most episodes of a shard.
        workers: processes; 1 makes all episodes in this one.
        found: JSON-ready; what had to be found out first. It is kept beside the plan and given back on resume.
    """

    layout: Layout
    attrs: Mapping[str, Any]
    make: MakeEpisodes
    shard_episodes: int
    workers: int = 1
    found: Any = None


@dataclass(frozen=True)
class Work:
    """A data set to be written.

    Attributes:
        name: what to call it in messages: "generation", "import".
        plan: JSON-ready; everything that decides the content of an episode. An unfinished output is only continued
            with the same plan. Numbers of episodes are not part of it, so that more may be asked for.
        num_episodes: episodes by split.
        plan_of: the plan that a finished file was made from, read from its attributes; may raise `InputError`.
        prepare: called once all is checked and locked, with what an interrupted run had found out or None.
    """

    name: str
    plan: Mapping[str, Any]
    num_episodes: Mapping[str, int]
    plan_of: Callable[[EpisodeFile], Mapping[str, Any]]
    prepare: Callable[[Any], Contents]

    def shards(self, shard_episodes: int) -> Iterator[Shard]:
        """All shards, in the order of the file."""
        for split, count in self.num_episodes.items():
            for first in range(0, count, shard_episodes):
                yield Shard(split, first, min(shard_episodes, count - first))


def shard_length(layout: Layout, most: int) -> int:
    """Episodes of a shard: at most `most`, fewer where they are large, at least one."""
    return max(1, min(most, SHARD_BYTES // sum(field.num_bytes for field in layout.values())))
