"""Summary and content hash of an episode file; the hash is cached beside the file."""

import hashlib
import json
import logging
import math
import os
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.files import write_json

BLOCK_BYTES = 64 << 20
"""Bytes that are read at a time."""
SAMPLED_EPISODES, SAMPLED_BYTES = 64, 256 << 20
"""Limits of the sample that statistics are computed from, per split."""
HASH_VERSION = 2
"""Version of the hash: changes when the same content gets another hash."""
LARGE_BYTES = 2 << 30
"""Size of a file above which a note says that it is read whole."""
TICK_S, COARSE_TICK_S = 0.02, 2.0
"""Resolution of file times in seconds; the coarse one is for file systems that store whole seconds."""

ProgressCallback = Callable[[int, int], None]
"""Called with the number of bytes done and the total."""


def content_hash(path: Path, first: int | None = None, on_progress: ProgressCallback = lambda done, total: None) -> str:
    """SHA-256 of the content of a file: attributes, axes and all values, in a fixed order.

    The storage in the file (chunks, compression, byte order, fixed- or variable-length text) does not matter, nor does
    the attribute `versions`.

    Args:
        path: episode file.
        first: hash only this many episodes of each split, from the first; None hashes all.
        on_progress: called with the number of bytes hashed, uncompressed.
    """
    digest = hashlib.sha256()
    with EpisodeFile(path, needs_frames=False) as episodes:
        fields = [(split, name) for split in episodes.splits for name in episodes.fields(split)]
        counts = {split: episodes.num_episodes(split) for split in episodes.splits}
        if first is not None:
            counts = {split: min(first, count) for split, count in counts.items()}
        total = sum(counts[split] * _episode_bytes(episodes.dataset(split, name)) for split, name in fields)
        done = 0
        facts = {name: value for name, value in episodes.attrs.items() if name != "versions"}
        _digest_json(digest, facts)
        for split, name in fields:
            dataset = episodes.dataset(split, name)
            kind = "text" if dataset.dtype.kind in "SO" else dataset.dtype.newbyteorder("<").str
            _digest_json(digest, [split, name, kind, [counts[split], *dataset.shape[1:]]])
            _digest_json(digest, episodes.field_attrs(split, name))
            for block in _blocks(counts[split], dataset):
                values = episodes.read(split, name, block)
                digest.update(_as_bytes(values))
                done += values.size * dataset.dtype.itemsize
                on_progress(done, total)
    return digest.hexdigest()


def _digest_json(digest: Any, document: Any) -> None:
    digest.update(json.dumps(as_json(document), sort_keys=True).encode())


def _as_bytes(values: np.ndarray) -> Any:
    """Values as bytes that depend only on the values."""
    if values.dtype.kind in "SO":
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in values.ravel().tolist()]
        return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _episode_bytes(dataset: Any) -> int:
    return math.prod(map(int, dataset.shape[1:])) * dataset.dtype.itemsize


def _blocks(count: int, dataset: Any) -> Iterator[tuple[slice, ...]]:
    """Slices of the first `count` episodes, in order, of about 64 MiB each: whole episodes, or parts of one."""
    episode_bytes = max(1, _episode_bytes(dataset))
    if episode_bytes <= BLOCK_BYTES or dataset.ndim == 1:
        step = max(1, BLOCK_BYTES // episode_bytes)
        yield from ((slice(start, min(start + step, count)),) for start in range(0, count, step))
        return
    length = dataset.shape[1]
    step = max(1, BLOCK_BYTES // (episode_bytes // length))
    for index in range(count):
        for start in range(0, length, step):
            yield slice(index, index + 1), slice(start, min(start + step, length))


# --- the cached hash --------------------------------------------------------------------------------------


def known_content_hash(path: Path, on_progress: ProgressCallback = lambda done, total: None) -> str:
    """`content_hash`, read from a small file beside `path` if size, modification time and inode are unchanged.

    If that file cannot be written, the hash is cached in the user's cache folder; if neither can be written, it is
    computed each time, and a warning says so.

    Args:
        path: episode file.
        on_progress: called with the number of bytes hashed; not called if the hash is cached.

    Raises:
        InputError: the file is invalid, or changes while it is read.
    """
    path = Path(path)
    places = [path.with_name(f".{path.name}.sha256.json"), _cached(path)]
    facts = _facts(path)
    for place in places:
        if place is not None and (found := _recorded(place, facts)):
            return found
    if facts["size"] > LARGE_BYTES:
        size = f"{facts['size'] / 2**30:.1f} GiB"
        logging.getLogger("slotssm").warning(f"{path} ({size}) is read whole once, to know its content again by a hash")
    _wait_for_the_clock(facts)
    hashed_ns = time.time_ns()
    sha256 = content_hash(path, on_progress=on_progress)
    if _facts(path) != facts:
        raise InputError(f"{path} changed while it was read; try again when it is completely written")
    document = facts | {"hashed_ns": hashed_ns, "sha256": sha256}
    if not any(_keep(place, document) for place in places if place is not None):
        logging.getLogger("slotssm").warning(
            f"the hash of {path} cannot be cached, neither beside it nor in a cache folder; it is computed each time"
        )
    return sha256


def _facts(path: Path) -> dict[str, int]:
    """Facts that identify the version of a file without reading it."""
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path}: {error.strerror}") from None
    return {
        "version": HASH_VERSION,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }


def _cached(path: Path) -> Path | None:
    """Path in the user's cache folder for the hash of a file whose own folder is not writable."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    except (RuntimeError, OSError):  # there is no home folder
        return None
    return root / "slotssm" / "hashes" / f"{name}.json"


def _recorded(place: Path, facts: dict[str, int]) -> str | None:
    """The cached hash of a file; None if there is none, or if it may be outdated."""
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        same = all(document[name] == value for name, value in facts.items())
        sha256, age_s = document["sha256"], (document["hashed_ns"] - document["mtime_ns"]) / 1e9
        if not same or len(sha256) != 64 or not set(sha256) <= set(string.hexdigits):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # a file hashed within one tick of its modification time may have changed without a new time
    return sha256 if age_s >= _tick_s(facts) else None


def _tick_s(facts: dict[str, int]) -> float:
    return COARSE_TICK_S if facts["mtime_ns"] % 1_000_000 == 0 else TICK_S


def _wait_for_the_clock(facts: dict[str, int]) -> None:
    """Wait until a file that was just written is older than one tick, unless its times are coarse or in the future."""
    rest_s = TICK_S - (time.time_ns() - facts["mtime_ns"]) / 1e9
    if 0 < rest_s <= TICK_S:
        time.sleep(rest_s)


def _keep(place: Path, document: dict[str, Any]) -> bool:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, document)
    except (InputError, OSError):
        return False
    return True


# --- descriptions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldSummary:
    """Summary of one dataset."""

    split: str
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    compression: str
    stored_bytes: int
    minimum: float | None
    mean: float | None
    maximum: float | None
    """Statistics of the finite values of the first episodes; None without finite values, and for categories."""
    num_non_finite: int
    """Number of NaN and infinite values in the same episodes."""
    shares: dict[str, float] | None = None
    """Share of each category among all episodes, or all objects that are not padding, if each has one."""


@dataclass
class _Statistics:
    """Running statistics of real numbers."""

    count: int = 0
    total: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    num_non_finite: int = 0

    @property
    def mean(self) -> float | None:
        """None without values, or if their sum overflows."""
        return self.total / self.count if self.count and math.isfinite(self.total) else None

    def add(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        self.num_non_finite += values.size - finite.size
        if finite.size:
            self.count += finite.size
            with np.errstate(over="ignore"):
                self.total += float(finite.sum(dtype=np.float64))
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))


def summarize(episodes: EpisodeFile, num_sampled: int = SAMPLED_EPISODES) -> list[FieldSummary]:
    """Summarise every dataset.

    Args:
        episodes: the file.
        num_sampled: number of episodes per split for statistics, from the first; fewer if they are large.
    """
    summaries = []
    for split in episodes.splits:
        for name in episodes.fields(split):
            dataset = episodes.dataset(split, name)
            attrs = episodes.field_attrs(split, name)
            categories = episodes.categories(split, name) if "categories" in attrs else []
            statistics = _Statistics()
            if dataset.dtype.kind in "biuf" and not categories:
                most = max(1, SAMPLED_BYTES // max(1, _episode_bytes(dataset)))
                for block in _blocks(min(num_sampled, most, len(dataset)), dataset):
                    statistics.add(episodes.read(split, name, block))
            known = statistics.count > 0
            summaries.append(
                FieldSummary(
                    split=split,
                    name=name,
                    dims=episodes.dims(split, name),
                    shape=tuple(int(size) for size in dataset.shape),
                    dtype="text" if dataset.dtype.kind in "SO" else str(dataset.dtype),
                    unit=attrs.get("unit") or ", ".join(categories),
                    compression=f"{dataset.compression}-{dataset.compression_opts}" if dataset.compression else "none",
                    stored_bytes=dataset.id.get_storage_size(),
                    minimum=statistics.minimum if known else None,
                    mean=statistics.mean,
                    maximum=statistics.maximum if known else None,
                    num_non_finite=statistics.num_non_finite,
                    shares=_shares(episodes, split, name, categories),
                )
            )
    return summaries


def _shares(episodes: EpisodeFile, split: str, name: str, categories: Sequence[str]) -> dict[str, float] | None:
    """Share of each category among the values; None without categories, without values, or with several for each."""
    dims, radius = list(episodes.dims(split, name)), "objects/radius"
    if not categories or dims not in (["episode"], ["episode", "object"]):
        return None
    values = episodes.read(split, name)
    if values.ndim == 2 and radius in episodes.fields(split) and episodes.dataset(split, radius).shape == values.shape:
        # only padding has none
        values = values[episodes.read(split, radius) > 0]
    if not values.size:
        return None
    return {name: float((values == code).mean()) for code, name in enumerate(categories)}


def describe(path: Path, with_hash: bool = False) -> dict[str, Any]:
    """Attributes and fields of a file as a JSON-compatible document, optionally with the content hash."""
    with EpisodeFile(path, needs_frames=False) as episodes:
        attrs = as_json(episodes.attrs)
        fields = [asdict(summary) for summary in summarize(episodes)]
    facts = {"path": str(path), "attrs": attrs, "fields": fields}
    return facts | {"content_sha256": content_hash(path)} if with_hash else facts


def as_json(value: Any) -> Any:
    """An attribute's value for JSON: NaN and infinity as text, complex numbers as pairs, raw bytes in hex."""
    if isinstance(value, dict):
        return {name: as_json(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.void):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, np.void):
        return as_json(value.item()) if value.dtype.names else value.tobytes().hex()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, complex):
        return [as_json(value.real), as_json(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    # h5py.Empty, and references, which have no meaning outside their file
    return None
