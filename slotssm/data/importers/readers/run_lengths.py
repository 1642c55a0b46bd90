"""Run-length masks of COCO: alternating counts of zeros and ones, column by column, as numbers or as text.

Source: the format of pycocotools (`maskApi.c`): six bits per character, of which five are digits, lowest first,
and every count from the fourth on is a difference from the last but one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.errors import InputError


def decode(mask: Mapping[str, Any], place: str) -> np.ndarray:
    """A mask as bool [H, W].

    Args:
        mask: `size` [height, width] and `counts`, a list of numbers or text.
        place: name for errors.
    """
    with layout_errors(place):
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"]
        runs = _from_text(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise InputError(f"{place}: the runs of a mask do not fill its {width} x {height} px; download it again")
    ones = np.arange(len(runs)) % 2 == 1
    return np.repeat(ones, runs).reshape(width, height).T


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode():
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"character {chr(byte)!r} in a run-length text")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length text that ends within a number")
    return counts
