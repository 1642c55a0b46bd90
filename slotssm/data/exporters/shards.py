"""WebDataset: tar files with one sample per episode (https://github.com/webdataset/webdataset)."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slotssm.data.episodes import Episode
from slotssm.data.exporters.form import (
    DESCRIPTION,
    FormOptions,
    as_json,
    as_npy,
    choose_frames_as,
)
from slotssm.data.exporters.images import encode_frame
from slotssm.data.exporters.selection import Selection, episode_name, frame_name

FORM = "webdataset"
SHARD_BYTES = 256 << 20


class Shards:
    """`train-000000.tar`, ...: samples of `<episode>.frames.npy`, `<episode>.objects.color.npy`, ...

    The same input gives the same bytes: members have neither times nor owners.
    """

    def __init__(self, selection: Selection, folder: Path, options: FormOptions) -> None:
        self._selection, self._folder = selection, folder
        self._frames_as = choose_frames_as(options, FORM, "npy", "png")
        self._shard_bytes = SHARD_BYTES if options.shard_bytes is None else options.shard_bytes
        self._shards: dict[str, list[dict[str, Any]]] = {split: [] for split in selection.numbers}

    def write(self, split: str) -> Iterator[None]:
        """Write a split, one episode per step."""
        shard: tarfile.TarFile | None = None
        shards = self._shards[split]
        try:
            for number in self._selection.numbers[split]:
                sample = self._sample(split, number, self._selection.read(split, number))
                size = sum(512 + -(-len(content) // 512) * 512 for content in sample.values())
                if shard is None or shard.offset + size > self._shard_bytes:
                    if shard is not None:
                        shard.close()
                    shards.append({"file": f"{split}-{len(shards):06d}.tar", "num_samples": 0})
                    shard = tarfile.open(self._folder / shards[-1]["file"], "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
                for name, content in sample.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
                shards[-1]["num_samples"] += 1
                yield
        finally:
            if shard is not None:
                shard.close()

    def _sample(self, split: str, number: int, episode: Episode) -> dict[str, bytes]:
        """Content of each member by its name."""
        members = {"json": as_json({"split": split, "episode": number}).encode()}
        for name, array in episode.items():
            if name == "frames" and self._frames_as == "png":
                members |= {
                    f"frames.{frame_name(index, len(array))}.png": encode_frame(frame)
                    for index, frame in enumerate(array)
                }
            else:
                members[f"{name.replace('/', '.')}.npy"] = as_npy(array)
        return {f"{episode_name(number)}.{extension}": members[extension] for extension in sorted(members)}

    def finish(self) -> None:
        """Write the description with the list of shards."""
        document = self._selection.describe(FORM) | {"frames_as": self._frames_as}
        for split, shards in self._shards.items():
            document["splits"][split]["shards"] = shards
        (self._folder / DESCRIPTION).write_text(as_json(document), encoding="utf-8")
