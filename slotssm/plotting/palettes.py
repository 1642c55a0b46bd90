"""One palette for all frames of a clip, in which flat colours stay exact."""

import numpy as np
from PIL import Image

from slotssm.plotting.colors import BACKGROUND, IGNORED, slot_colors
from slotssm.plotting.panels import PAGE_COLOR, TEXT_COLOR

PALETTE_SIZE = 255
"""Colours of a GIF, at most; one more entry of its table stands for pixels that do not change."""
NUM_FLAT = 64
"""How many of the most frequent colours of a data set are kept exact, at most."""
FLAT_SHARE = 2e-4
"""Smallest share of the pixels for a colour to count as flat."""
_NUM_SLOT_COLORS = 64


def flat_colors(frames: np.ndarray) -> np.ndarray:
    """The colours that cover areas of a video, most frequent first, such as those of objects without texture.

    Args:
        frames: uint8 [..., 3].

    Returns:
        uint8 [C, 3], at most `NUM_FLAT` colours.
    """
    packed, counts = np.unique(_packed(frames), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:NUM_FLAT]
    return _unpacked(packed[order[counts[order] >= FLAT_SHARE * counts.sum()]])


def common_palette(frames: np.ndarray, exact: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a clip to one palette of at most `PALETTE_SIZE` colours.

    A clip with no more colours than that keeps them all. Otherwise the colours of slots, page and text are kept, those
    in `exact` as far as there is room, and all others are replaced by the nearest of Pillow's median cut, without
    dithering.

    Args:
        frames: uint8 [T, H, W, 3].
        exact: further colours to keep, uint8 [C, 3], most important first.

    Returns:
        Palette, uint8 [C, 3] without repetition, and the index of each pixel in it, uint8 [T, H, W].
    """
    packed = _packed(frames)
    known, inverse = np.unique(packed, return_inverse=True)
    if len(known) > PALETTE_SIZE:
        kept = _kept(known, exact)
        rest = known[~np.isin(known, kept)]
        found, nearest = _quantized(packed[~np.isin(packed, kept)], rest, PALETTE_SIZE - len(kept))
        palette = np.unique(np.concatenate([kept, found]))
        colors = known.copy()
        colors[~np.isin(known, kept)] = nearest
    else:
        palette = colors = known
    indices = np.searchsorted(palette, colors).astype(np.uint8)
    return _unpacked(palette), indices[inverse].reshape(packed.shape)


def spare_color(palette: np.ndarray) -> np.ndarray:
    """A colour that is not in a palette, uint8 [3]."""
    free = np.setdiff1d(np.arange(len(palette) + 1, dtype=np.uint32), _packed(palette))
    return _unpacked(free)[0]


def _kept(known: np.ndarray, exact: np.ndarray | None) -> np.ndarray:
    """The colours among `known` that stay as they are; at least one entry in four is left to the others."""
    own = np.concatenate([slot_colors(_NUM_SLOT_COLORS), [PAGE_COLOR, TEXT_COLOR, BACKGROUND, IGNORED]])
    wanted = own if exact is None else np.concatenate([own, exact])
    present = set(known.tolist())
    kept = [color for color in dict.fromkeys(_packed(wanted).tolist()) if color in present]
    return np.array(kept[: PALETTE_SIZE * 3 // 4], np.uint32)


def _quantized(pixels: np.ndarray, colors: np.ndarray, num_colors: int) -> tuple[np.ndarray, np.ndarray]:
    """A palette for some pixels, and the entry for each of their colours, all as packed colours."""
    chosen = _picture(pixels).quantize(num_colors, dither=Image.Dither.NONE)
    found = _packed(np.array(chosen.getpalette(), np.uint8).reshape(-1, 3))
    nearest = np.asarray(_picture(colors).quantize(palette=chosen, dither=Image.Dither.NONE))[0]
    return found, found[nearest]


def _picture(packed: np.ndarray) -> Image.Image:
    return Image.fromarray(_unpacked(packed)[None])


def _packed(colors: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as one number each."""
    red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


def _unpacked(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
