"""Videos for a page: contact sheets of frames and of exact label maps, which the page decodes and lights up."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slotssm.plotting.sheets import contact_sheet

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Track:
    """One picture that changes over the frames.

    Attributes:
        title: what is shown.
        frames: uint8 [T, H, W, 3] RGB, or [T, H, W] labels.
        colors: uint8 [256, 3], colour of each label; None for RGB.
    """

    title: str
    frames: np.ndarray
    colors: np.ndarray | None = None


@dataclass(frozen=True)
class Region:
    """A slot or an object, whose pixels can be lit.

    Attributes:
        name: such as `slot 2`.
        color: RGB.
        label: its value in the label maps.
        pictures: uint8 [T, H, W, 4], what the slot paints, with opacity; None if it paints nothing.
    """

    name: str
    color: RGB
    label: int
    pictures: np.ndarray | None = None


@dataclass(frozen=True)
class Video:
    """An episode to show.

    Attributes:
        title: such as `episode 3`.
        subtitle: why it is shown.
        scores: names and values of its scores.
        frame_numbers: number of each frame in the episode.
        tracks: pictures side by side, all with T frames of H x W pixels.
        regions: slots or objects; empty if there are none.
        labels: uint8 [T, H, W], the label maps that regions refer to; None without regions.
        properties: table of the objects: headings, and rows of texts, one for all frames or one for each.
    """

    title: str
    subtitle: str
    scores: Mapping[str, float | None]
    frame_numbers: Sequence[int]
    tracks: Sequence[Track]
    regions: Sequence[Region] = ()
    labels: np.ndarray | None = None
    properties: tuple[Sequence[str], Sequence[Sequence[str | Sequence[str]]]] | None = None


@dataclass(frozen=True)
class VideoDocument:
    """An embedded video.

    Attributes:
        content: everything that the page's script needs, as JSON.
    """

    content: Mapping[str, Any]

    @cached_property
    def text(self) -> str:
        """The content as JSON that can stand in a `script` element: without `<`, `>` and `&`."""
        text = json.dumps(self.content, allow_nan=False, separators=(",", ":"))
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

    @property
    def num_bytes(self) -> int:
        """Size on the page."""
        return len(self.text)


def embed(video: Video) -> VideoDocument:
    """Turn arrays into contact sheets."""
    height, width = video.tracks[0].frames.shape[1:3]
    content: dict[str, Any] = {
        "title": video.title,
        "subtitle": video.subtitle,
        "scores": [[name, value] for name, value in video.scores.items()],
        "numbers": list(video.frame_numbers),
        "height": height,
        "width": width,
        "tracks": [_track(track) for track in video.tracks],
        "regions": [_region(region, video.labels) for region in video.regions],
        "labels": None if video.labels is None else _sheet(video.labels),
        "properties": None,
    }
    if video.properties is not None:
        content["properties"] = {"columns": video.properties[0], "rows": video.properties[1]}
    return VideoDocument(content)


def _track(track: Track) -> dict[str, Any]:
    colors = None
    if track.colors is not None:
        colors = {str(label): track.colors[label].tolist() for label in np.unique(track.frames).tolist()}
    return {"title": track.title, "colors": colors, **_sheet(track.frames)}


def _region(region: Region, labels: np.ndarray | None) -> dict[str, Any]:
    share = [] if labels is None else (labels == region.label).mean(axis=(1, 2)).round(5).tolist()
    pictures = None if region.pictures is None else _sheet(region.pictures)
    return {
        "name": region.name,
        "color": list(region.color),
        "label": region.label,
        "share": share,
        "pictures": pictures,
    }


def _sheet(frames: np.ndarray) -> dict[str, Any]:
    content, columns = contact_sheet(frames)
    return {"sheet": base64.b64encode(content).decode(), "columns": columns}
