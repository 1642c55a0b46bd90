"""Read frames, masks and depth maps from image files and arrays."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from slotssm.errors import InputError

MAX_ID = 254
"""Largest id of an object; 255 is `ignore`."""
IGNORE_ID = 255

FRAME_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""Formats of frames. No other is opened, whatever a file is called: Pillow starts other programs for some of them."""
EXACT_FORMATS = ("PNG", "TIFF")
"""Formats of masks and depth maps."""
_GREY = 0
"""Colour type of a grey PNG."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_ORIENTATION = 0x0112
"""EXIF tag."""


def read_bytes(path: Path) -> bytes:
    """Content of a file; `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _open(content: bytes, place: str) -> tuple[Image.Image, str]:
    """A decoded picture as it is meant to be seen, with its EXIF orientation applied, and its format."""
    if content.startswith(_PNG) and (fault := _png_fault(content)):
        raise InputError(f"{place} is damaged ({fault}); download or write it again")
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FRAME_FORMATS)
        image.load()
        name = image.format or ""
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise InputError(f"{place} is refused: {error}") from None
    # a damaged file may let a decoder raise nearly anything
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error) as error:
        unknown = "cannot identify" in str(error)
        reason = f"not a picture ({', '.join(FRAME_FORMATS)})" if unknown else str(error).partition("\n")[0]
        raise InputError(f"{place} is damaged ({reason}); download or write it again") from None
    return image, name


def _png_fault(content: bytes) -> str:
    """What is wrong with the chunks of a PNG, whose checksums Pillow does not look at; empty if nothing."""
    position = len(_PNG)
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(memoryview(content)[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return f"checksum of a chunk at byte {position}"
        if name == b"IEND":
            return ""
        position = end + 4
    return "image file is truncated"


def _bit_depth(content: bytes) -> int:
    """Bits per channel of a PNG; 8 for other formats."""
    return content[24] if content.startswith(_PNG) and len(content) > 24 else 8


def frame(content: bytes, place: str, opaque: bool = True) -> np.ndarray:
    """An image as uint8 [H, W, 3].

    Args:
        content: an encoded image of 8 bits per channel; grey images get three equal channels.
        place: name for errors.
        opaque: refuse transparent pixels; otherwise transparency is left out.
    """
    image, _ = _open(content, place)
    if image.mode.startswith(("I", "F")) or _bit_depth(content) > 8:
        raise InputError(f"{place} has more than 8 bits a channel; frames are written with 8, so convert it first")
    if opaque and ("A" in image.getbands() or "transparency" in image.info):
        whole = image.convert("RGBA")
        if whole.getchannel("A").getextrema() != (255, 255):
            raise InputError(f"{place} has transparent pixels; lay it on a background first")
    return np.asarray(image.convert("RGB"))


def label_values(content: bytes, place: str) -> np.ndarray:
    """A mask as int64 [H, W]: palette indices or numbers as stored, never colours.

    Args:
        content: a PNG with a palette, a grey PNG or TIFF of up to 16 bits, or a .npy array of integers.
        place: name for errors.

    Raises:
        InputError: the file is damaged, lossy or coloured.
    """
    if content[: len(_NPY)] == _NPY:
        values = _array(content, place)
        if values.ndim != 2 or values.dtype.kind not in "iub":
            raise InputError(f"{place} holds {values.dtype} {values.shape}; a mask is integers [H, W]")
        return values.astype(np.int64)
    image, name = _open(content, place)
    if name not in EXACT_FORMATS:
        raise InputError(f"{place} is a {name} file; masks must be PNG, TIFF or .npy, since lossy formats change ids")
    if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
        raise InputError(
            f"{place} has colours ({image.mode}) and blended edges cannot be told from ids; write the ids as a PNG "
            "with a palette, or a grey one"
        )
    values = np.asarray(image).astype(np.int64)
    if content.startswith(_PNG) and content[25] == _GREY and _bit_depth(content) in (2, 4):
        values //= 255 // (2 ** _bit_depth(content) - 1)  # pillow stretches these to 8 bits
    return values


def labels(content: bytes, place: str) -> np.ndarray:
    """A mask as uint8 [H, W], as `label_values` reads it; ids above 254 other than 255 are refused."""
    return as_labels(label_values(content, place), place)


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
    """A depth map as float32 [H, W]: the stored values of a grey PNG or TIFF, or of a .npy array."""
    if content[: len(_NPY)] == _NPY:
        values = _array(content, place)
    else:
        image, name = _open(content, place)
        if name not in EXACT_FORMATS or not image.mode.startswith(("L", "I", "F")) or image.mode == "LA":
            raise InputError(
                f"{place} is not a depth map: a grey PNG of 8 or 16 bits, a TIFF or a .npy array is expected"
            )
        values = np.asarray(image)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise InputError(f"{place} holds {values.dtype} {values.shape}; a depth map is numbers [H, W]")
    return values.astype(np.float32)


def _array(content: bytes, place: str) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False, max_header_size=10_000)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError, MemoryError, OverflowError, LookupError) as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise InputError(f"{place} is damaged ({reason}); write it again") from None
    return np.asarray(values)
