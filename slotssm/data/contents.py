"""What an episode file says: its content hash and a description for people."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import EpisodeFile


def content_hash(path: Path, first: int | None = None) -> str:
    """SHA-256 over what the file says: recipe, seed and every value, in a fixed order.

    How the bytes lie in the file (chunks, compression, versions of the writer) does not matter.

    Args:
        path: episode file.
        first: only the first so many episodes of each split; the counts then leave the hash.
    """
    digest = hashlib.sha256()
    with EpisodeFile(path, needs_frames=False) as episodes:
        facts = {name: value for name, value in sorted(episodes.attrs.items()) if name != "versions"}
        digest.update(json.dumps(facts, default=_as_list).encode())
        for split in episodes.splits:
            for name in episodes.fields(split):
                dataset = episodes.dataset(split, name)
                count = len(dataset) if first is None else min(first, len(dataset))
                digest.update(f"{split}/{name}:{dataset.dtype.str}{(count, *dataset.shape[1:])}".encode())
                digest.update(json.dumps(episodes.field_attrs(split, name), default=_as_list).encode())
                for part in _blocks(count, dataset):
                    digest.update(np.ascontiguousarray(episodes.read(split, name, part)).data)
    return digest.hexdigest()


def _as_list(value: np.ndarray) -> Any:
    return value.tolist()


def _blocks(count: int, dataset: Any) -> Iterator[slice]:
    """Slices of episodes of about 64 MB."""
    episode_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    step = max(1, (64 << 20) // episode_bytes)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


@dataclass(frozen=True)
class FieldSummary:
    """What `inspect` tells of one dataset."""

    split: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    compression: str
    stored_bytes: int
    minimum: float | None
    mean: float | None
    maximum: float | None
    """Statistics of the finite values of the first episodes; None where there is nothing to measure."""
    num_non_finite: int
    """NaN and infinite values among them."""


def summarize(episodes: EpisodeFile, num_sampled: int = 64) -> list[FieldSummary]:
    """Describe every dataset; statistics are over the first `num_sampled` episodes of each split."""
    summaries = []
    for split in episodes.splits:
        for name in episodes.fields(split):
            dataset = episodes.dataset(split, name)
            attrs = episodes.field_attrs(split, name)
            unit = attrs.get("unit") or ", ".join(json.loads(attrs.get("categories", "[]")))
            values = episodes.read(split, name, slice(0, num_sampled))
            finite = values[np.isfinite(values)]
            known = finite.size > 0
            summaries.append(
                FieldSummary(
                    split=split,
                    name=name,
                    shape=tuple(dataset.shape),
                    dtype=str(dataset.dtype),
                    unit=unit,
                    compression=f"{dataset.compression}-{dataset.compression_opts}" if dataset.compression else "none",
                    stored_bytes=dataset.id.get_storage_size(),
                    minimum=float(finite.min()) if known else None,
                    mean=float(finite.mean(dtype=np.float64)) if known else None,
                    maximum=float(finite.max()) if known else None,
                    num_non_finite=int(values.size - finite.size),
                )
            )
    return summaries


def describe(path: Path, with_hash: bool = False) -> dict[str, Any]:
    """Attributes and fields of a file as one JSON-ready document, optionally with its content hash."""
    with EpisodeFile(path, needs_frames=False) as episodes:
        attrs = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in episodes.attrs.items()
        }
        fields = [asdict(summary) for summary in summarize(episodes)]
    facts = {"path": str(path), "attrs": attrs, "fields": fields}
    return facts | {"content_sha256": content_hash(path)} if with_hash else facts


def known_content_hash(path: Path) -> str:
    return content_hash(path)
