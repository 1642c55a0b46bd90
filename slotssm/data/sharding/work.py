"""Description of what is to be written: the plan, and the function that makes the episodes of a shard."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slotssm.data.episodes import Episode, EpisodeFile, Layout
from slotssm.errors import InputError

SHARD_BYTES = 64 << 20
"""Approximate uncompressed size of a shard, which a process keeps in memory."""

ProgressCallback = Callable[[int, int], None]
"""Called with the number of episodes done and the total."""


class DamagedSourceError(InputError):
    """The source of the episodes is damaged: nothing that was written from it is kept."""


@dataclass(frozen=True)
class Shard:
    """Consecutive episodes of one split."""

    split: str
    first: int
    count: int

    @property
    def file_name(self) -> str:
        """File name in the folder of shards."""
        return f"{self.split}-{self.first:08d}-{self.count}.h5"


@dataclass(frozen=True)
class LeftOut:
    """In place of an episode that cannot be made, and is left out.

    Attributes:
        episode: its name.
        reason: one line.
    """

    episode: str
    reason: str


MakeEpisodes = Callable[[Shard], Iterable[Episode | LeftOut]]
"""Makes the episodes of a shard in order; lazily, if memory or interruption require it."""


@dataclass(frozen=True)
class Contents:
    """What the file will hold.

    Attributes:
        layout: fields of every split.
        attrs: root attributes of the finished file.
        make: makes the episodes of a shard; for several workers it must be picklable, since they are spawned.
        shard_episodes: most episodes of a shard.
        workers: processes; 1 makes all episodes in this one.
        found: JSON-compatible facts that had to be found out in advance; stored with the plan and reused on resume.
        num_episodes: number of episodes by split, if the work does not state it.
        attrs_of: root attributes that depend on the episodes that were left out.
    """

    layout: Layout
    attrs: Mapping[str, Any]
    make: MakeEpisodes
    shard_episodes: int
    workers: int = 1
    found: Any = None
    num_episodes: Mapping[str, int] | None = None
    attrs_of: Callable[[Sequence[LeftOut]], Mapping[str, Any]] = lambda left_out: {}

    def shards(self) -> Iterator[Shard]:
        """All shards, in file order."""
        for split, count in (self.num_episodes or {}).items():
            for first in range(0, count, self.shard_episodes):
                yield Shard(split, first, min(self.shard_episodes, count - first))


@dataclass(frozen=True)
class Work:
    """A data set to be written.

    Attributes:
        name: name for messages: "generation", "import".
        plan: JSON-compatible; everything that determines the content of an episode. An unfinished output is only
            resumed with the same plan. The plan excludes the numbers of episodes, which may be increased.
        num_episodes: number of episodes by split; None if the plan determines it, and `prepare` finds it out.
        plan_of: returns the plan of a finished file, from its attributes; may raise `InputError`.
        prepare: called after all checks with the lock held, with `Contents.found` of an interrupted run or None.
    """

    name: str
    plan: Mapping[str, Any]
    num_episodes: Mapping[str, int] | None
    plan_of: Callable[[EpisodeFile], Mapping[str, Any]]
    prepare: Callable[[Any], Contents]


def shard_length(layout: Layout, most: int) -> int:
    """Number of episodes per shard: at most `most`, fewer if they are large, at least one."""
    return max(1, min(most, SHARD_BYTES // sum(field.num_bytes for field in layout.values())))
