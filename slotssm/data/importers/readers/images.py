"""Read frames, masks and depth maps from image files, and resize them.

Frames are averaged over areas; masks and depth maps are sampled, so that no new values arise.
"""

import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from slotssm.errors import InputError

MAX_ID = 254
"""Largest id of an object; 255 is `ignore`."""
IGNORE_ID = 255

_GREY = 0
"""Colour type of a grey PNG."""


def _open(content: bytes, place: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except Image.DecompressionBombError as error:
        raise InputError(f"{place} is refused: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        reason = "not a picture" if "cannot identify" in str(error) else str(error).splitlines()[0]
        raise InputError(f"{place} is damaged ({reason}); download or write it again") from None
    return image


def read_bytes(path: Path) -> bytes:
    """Content of a file; `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def frame(content: bytes, place: str) -> np.ndarray:
    """An image as uint8 [H, W, 3].

    Args:
        content: an encoded image of 8 bits per channel; grey images get three equal channels.
        place: name for errors.
    """
    image = _open(content, place)
    if image.mode in ("I;16", "I;16B", "I", "F"):
        raise InputError(f"{place} has more than 8 bits a channel; frames are written with 8, so convert it first")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = image.convert("RGBA")
        if opaque.getchannel("A").getextrema() != (255, 255):
            raise InputError(f"{place} has transparent pixels; lay it on a background first")
    return np.asarray(image.convert("RGB"))


def labels(content: bytes, place: str) -> np.ndarray:
    """A mask as uint8 [H, W]: palette indices or grey values as stored, never colours.

    Args:
        content: a PNG with a palette, or a grey PNG of up to 16 bits; 0 is background, 255 is ignore.
        place: name for errors.

    Raises:
        InputError: the file is damaged, lossy or coloured, or contains ids above 254 other than 255.
    """
    image = _open(content, place)
    if image.format != "PNG":
        raise InputError(f"{place} is a {image.format} file; masks must be PNG, since lossy formats change ids")
    if image.mode not in ("P", "L", "1", "I;16", "I;16B", "I"):
        raise InputError(
            f"{place} has colours ({image.mode}) and blended edges cannot be told from ids; write the ids as a PNG "
            "with a palette, or a grey one"
        )
    values = np.asarray(image).astype(np.int64)
    bit_depth, color_type = content[24], content[25]
    if color_type == _GREY and bit_depth in (2, 4):
        values //= 255 // (2**bit_depth - 1)  # pillow stretches these to 8 bits
    return as_labels(values, place)


def as_labels(values: np.ndarray, place: str) -> np.ndarray:
    """Integers as uint8; `InputError` for ids that do not fit."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > IGNORE_ID:
        raise InputError(
            f"{place} holds the id {low if low < 0 else high}; ids must be 0 (background) to {MAX_ID}, 255 is ignore: "
            "number the objects from 1"
        )
    return values.astype(np.uint8)


def depth_map(content: bytes, place: str) -> np.ndarray:
    """A depth map as float32 [H, W], the stored values of a grey PNG of 8 or 16 bits or of a .npy array."""
    if content[:6] == b"\x93NUMPY":
        try:
            values = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{place} is damaged ({str(error).splitlines()[0]}); write it again") from None
    else:
        image = _open(content, place)
        if image.format != "PNG" or image.mode not in ("L", "I;16", "I;16B", "I"):
            raise InputError(f"{place} is not a depth map: a grey PNG of 8 or 16 bits or a .npy array is expected")
        values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise InputError(f"{place} holds {values.dtype} {values.shape}; a depth map is numbers [H, W]")
    return values.astype(np.float32)


def resize_frame(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame uint8 [H, W, 3] at (height, width): mean over the area when it shrinks, linear when it grows."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    rows, columns = (_weights(old, new) for old, new in zip(pixels.shape, size, strict=False))
    reduced = (rows @ pixels.reshape(len(pixels), -1).astype(np.float64)).reshape(size[0], *pixels.shape[1:])
    return np.rint(np.einsum("wx,hxc->hwc", columns, reduced, optimize=True)).astype(np.uint8)


@lru_cache(maxsize=8)
def _weights(old: int, new: int) -> np.ndarray:
    """Weight of each old pixel in each new one along an axis, float64 [new, old]; rows sum to 1."""
    if new <= old:
        edges = np.arange(new + 1) * old / new
        ends = np.minimum(edges[1:, None], np.arange(1, old + 1))
        return (ends - np.maximum(edges[:-1, None], np.arange(old))).clip(min=0) * new / old
    centers = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return (1 - np.abs(centers[:, None] - np.arange(old))).clip(min=0)


def middle(source: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the largest part in the middle of a frame that has the aspect ratio of another size.

    Args:
        source: height and width of the frame.
        size: height and width of the other size.
    """
    height, width = source
    kept = min(height, max(1, round(width * size[0] / size[1]))), min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return slice(top, top + kept[0]), slice(left, left + kept[1])


def resize_weights(soft: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights [..., h, w] at (height, width), by the rule of `resize_frame`, float32."""
    rows, columns = (_weights(old, new).astype(np.float32) for old, new in zip(soft.shape[-2:], size, strict=True))
    return rows @ soft.astype(np.float32) @ columns.T


def sample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks or depth maps [..., H, W] at (height, width), each pixel taken from the nearest one."""
    if values.shape[-2:] == tuple(size):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns[None, :]]
