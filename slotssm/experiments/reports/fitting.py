"""How many episodes, frames and pixels fit into a page of limited size."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slotssm.data.clips import spread
from slotssm.report import Video, VideoDocument, embed

LARGEST_SIDE_PX = 192
"""Frames with a longer side are reduced by leaving out rows and columns."""


@dataclass(frozen=True)
class Plan:
    """What is embedded of each episode.

    Attributes:
        num_frames: largest number of frames; longer episodes are shown at even distances, with first and last frame.
        pictures: whether the pictures of slots are embedded.
        side_px: longest side of a frame.
    """

    num_frames: int = 48
    pictures: bool = True
    side_px: int = LARGEST_SIDE_PX

    def frames(self, total: int) -> list[int]:
        """Numbers of the frames to show."""
        return spread(total, self.num_frames)

    def stride(self, size: tuple[int, int]) -> int:
        """Distance of the rows and columns that are kept of frames of this height and width."""
        return max(1, -(-max(size) // self.side_px))

    def reducer(self, size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
        """A function that reduces videos [T, H, W, ...] of this height and width; labels stay exact."""
        stride = self.stride(size)
        return lambda video: video[:, stride // 2 :: stride, stride // 2 :: stride]


PLANS = (Plan(), Plan(pictures=False), Plan(24, False), Plan(24, False, 96), Plan(12, False, 96), Plan(6, False, 64))
"""From the most to the least that is embedded."""


@dataclass(frozen=True)
class Fitted:
    """Videos that fit.

    Attributes:
        videos: in the order in which they were asked for.
        places: their places among those that were asked for.
        plan: what is embedded of each.
    """

    videos: list[VideoDocument]
    places: list[int]
    plan: Plan

    @property
    def num_bytes(self) -> int:
        """Size on the page."""
        return sum(video.num_bytes for video in self.videos)


def fit(count: int, make: Callable[[int, Plan], Video], budget_bytes: int) -> Fitted:
    """Embed as many videos as fit.

    The first plan under which all of them would fit, judged by the first, is taken, or else the last plan. If the space
    runs out, episodes in the middle of the order are left out, so that the worst and the best ones stay.

    Args:
        count: number of videos.
        make: makes the i-th video under a plan.
        budget_bytes: space on the page.
    """
    if count == 0:
        return Fitted([], [], PLANS[0])
    for plan in PLANS:
        first = embed(make(0, plan))
        if first.num_bytes * count <= budget_bytes:
            break
    found: dict[int, VideoDocument] = {}
    left = budget_bytes
    for place in _from_both_ends(count):
        document = first if place == 0 else embed(make(place, plan))
        if document.num_bytes > left:
            break
        found[place] = document
        left -= document.num_bytes
    places = sorted(found)
    return Fitted([found[place] for place in places], places, plan)


def _from_both_ends(count: int) -> list[int]:
    """Places of the worst half from its start, alternating with those of the best half from its start."""
    half = (count + 1) // 2
    pairs = [(place, place + half) for place in range(half)]
    return [place for pair in pairs for place in pair if place < count]


def describe_plan(fitted: Fitted, count: int, num_frames: int, size: tuple[int, int]) -> list[str]:
    """Sentences about what was left out to limit the size of the page."""
    plan, found = fitted.plan, []
    if len(fitted.videos) < count:
        found.append(
            f"{count - len(fitted.videos)} of {count} episodes are left out to keep the page below its size limit."
        )
    if plan.num_frames < num_frames:
        found.append(f"{len(plan.frames(num_frames))} of {num_frames} frames of each episode are shown.")
    if plan.stride(size) > 1:
        found.append(f"One of every {plan.stride(size)} rows and columns is shown.")
    if not plan.pictures:
        found.append("Slots show the input in their masks, since their own pictures would take too much space.")
    return found
