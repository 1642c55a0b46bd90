"""Assignment of episodes to splits: those of the source, or a seeded division."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from slotssm.data.episodes import SPLITS
from slotssm.data.importers.readers.listing import entries
from slotssm.data.importers.readers.options import DEFAULT_SHARE, ImportOptions
from slotssm.errors import InputError

SPELLINGS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""Names of the splits in sources."""
UNDIVIDED = "all"
"""Name of the episodes of a source without splits, as in `splits` test=all."""

Key = TypeVar("Key")


def own_splits(path: Path, is_episode: Callable[[Path], bool]) -> dict[str, Path]:
    """Folders named after splits by our names; without any, the folder itself under `all`.

    Args:
        path: folder of the source.
        is_episode: whether a folder is an episode, whatever it is called.

    Raises:
        InputError: two folders are the same split.
    """
    named: dict[str, Path] = {}
    for folder in entries(path):
        if folder.is_dir() and folder.name in SPELLINGS and not is_episode(folder):
            other = named.setdefault(SPELLINGS[folder.name], folder)
            if other != folder:
                raise InputError(f"{other} and {folder.name} are both the split {SPELLINGS[folder.name]}; keep one")
    return named or {UNDIVIDED: path}


def assign(own: Mapping[str, Sequence[Key]], options: ImportOptions, source: str) -> dict[str, list[Key]]:
    """Episodes by split, in the order train, val, test.

    Args:
        own: the source's splits by our names; or all of its episodes, in a fixed order, under `all`.
        options: splits, counts, shares and limit.
        source: name for errors.

    Raises:
        InputError: a split does not exist, or the counts exceed the number of episodes.
    """
    chosen: Mapping[str, Sequence[Key]]
    divided = UNDIVIDED not in own
    if divided and (options.val is not None or options.test is not None):
        raise InputError(f"`val` and `test` are for sources without splits; {source} has {_listed(own)}, see `splits`")
    if options.splits:
        chosen = _renamed(own, options, source)
    else:
        chosen = own if divided else divide(own[UNDIVIDED], options, source)
    found = {split: list(chosen[split])[: options.limit] for split in SPLITS if chosen.get(split)}
    if not found:
        raise InputError(f"{source} holds no episodes")
    return found


def _renamed(own: Mapping[str, Sequence[Key]], options: ImportOptions, source: str) -> dict[str, Sequence[Key]]:
    chosen: dict[str, Sequence[Key]] = {}
    for choice in options.splits:
        ours, _, theirs = choice.partition("=")
        ours, theirs = (SPELLINGS.get(name, name) for name in (ours, theirs or ours))
        if ours not in SPLITS:
            raise InputError(f"`splits` {choice}: a file has the splits {', '.join(SPLITS)}")
        if theirs not in own:
            raise InputError(f"`splits` {choice}: {source} has {_listed(own)}")
        if ours in chosen:
            raise InputError(f"`splits` {choice}: {ours} was named before")
        chosen[ours] = own[theirs]
    return chosen


def _listed(own: Mapping[str, Sequence[Key]]) -> str:
    if UNDIVIDED in own:
        return f"no splits of its own; name all of it as in `splits` test={UNDIVIDED}, or see `val` and `test`"
    return ", ".join(f"{split} ({len(keys)})" for split, keys in own.items())


def divide(keys: Sequence[Key], options: ImportOptions, source: str) -> dict[str, list[Key]]:
    """Draw test and val from all episodes; the others are train. Each split keeps the order of `keys`."""
    num_test = _count(options.test, len(keys))
    num_val = _count(options.val, len(keys))
    if num_val + num_test > len(keys):
        raise InputError(f"`val` and `test` ask for {num_val + num_test} of the {len(keys)} episodes in {source}")
    order = np.random.default_rng(np.random.SeedSequence(options.seed)).permutation(len(keys))
    parts = np.split(order, [num_test, num_test + num_val])
    return {split: [keys[i] for i in sorted(part)] for split, part in zip(("test", "val", "train"), parts, strict=True)}


def _count(wanted: int | float | None, total: int) -> int:
    """A number of episodes from a number or a share; a share is at least one episode if there are three or more."""
    if isinstance(wanted, int):
        return wanted
    share = DEFAULT_SHARE if wanted is None else wanted
    return max(round(share * total), 1 if share > 0 and total > 2 else 0)
