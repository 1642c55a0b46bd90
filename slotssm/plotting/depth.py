"""Depth maps as pictures, with a legend of their colours."""

import matplotlib
import numpy as np

from slotssm.metrics import is_measured
from slotssm.plotting.panels import PAGE_COLOR, SMALLEST_TILE_PX, Column, Text

UNKNOWN_COLOR = (128, 128, 128)
"""Colour of pixels that were not measured."""
FARTHEST_PERCENTILE = 99.0
"""Depths beyond this percentile have the last colour, so that a few distant pixels leave the others distinct."""
LOGARITHMIC_FROM = 10.0
"""Ratio of the farthest to the nearest depth from which colours follow the logarithm of depth."""
COLORMAP = "viridis_r"
BAR_PX = 12
LINE_PX = 14


def depth_columns(depth: np.ndarray, unit: str, predicted: np.ndarray | None = None) -> list[Column]:
    """Depth of an episode, predicted depth in the same colours, and their legend, for a storyboard.

    Args:
        depth: float [T, H, W]; 0 and values that are not finite were not measured. It sets the scale, unless nothing
            was measured.
        unit: unit of the values; empty if unknown.
        predicted: float [T, H, W]; None for none.
    """
    known = depth[is_measured(depth)].astype(np.float64)
    if not known.size and predicted is not None:
        known = predicted[is_measured(predicted)].astype(np.float64)
    near, far = (known.min(), np.percentile(known, FARTHEST_PERCENTILE)) if known.size else (0.0, 0.0)
    title = f"depth ({unit})" if unit and len(unit) <= SHORT else "depth"
    legend, texts = _legend(float(near), float(far), bool(known.size and known.max() > far), depth.shape[1:])
    columns = [Column(title, paint_depth(depth, float(near), float(far)))]
    if predicted is not None:
        columns.append(Column("predicted", paint_depth(predicted, float(near), float(far))))
    return [*columns, Column("", legend[None], texts=texts)]


SHORT = 12
"""Longest unit that fits into a title."""


def paint_depth(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Colours of depths, uint8 [..., 3]: near is bright, far is dark, and what was not measured is grey.

    They are proportional to depth, or over a wide range (`LOGARITHMIC_FROM`) to its logarithm.

    Args:
        depth: float [...].
        near: depth of the first colour.
        far: depth of the last colour.
    """
    known = is_measured(depth)
    shown = np.where(known, depth, 1.0).astype(np.float64)
    if _is_logarithmic(near, far):
        shown, near, far = np.log(shown), np.log(near), np.log(far)
    share = ((shown - near) / max(far - near, 1e-12)).clip(0, 1)
    colors = (_palette()[np.rint(share * 255).astype(np.uint8)]).copy()
    colors[~known] = UNKNOWN_COLOR
    return colors


def _is_logarithmic(near: float, far: float) -> bool:
    return 0 < near * LOGARITHMIC_FROM <= far


def _palette() -> np.ndarray:
    """uint8 [256, 3]."""
    return (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _legend(near: float, far: float, is_cut: bool, size: tuple[int, int]) -> tuple[np.ndarray, list[Text]]:
    """The colours, uint8 [H, W, 3], and the depths of their ends and middle, and that of pixels without depth."""
    zoom = max(1, -(-SMALLEST_TILE_PX // min(size)))
    height, width = size[0] * zoom, size[1] * zoom
    bottom = height - 2 * LINE_PX
    legend = np.full((height, width, 3), PAGE_COLOR, np.uint8)
    legend[:bottom, 2 : 2 + BAR_PX] = _palette()[np.linspace(0, 255, bottom).astype(int), None]
    legend[bottom + 4 : bottom + 4 + BAR_PX, 2 : 2 + BAR_PX] = UNKNOWN_COLOR
    middle = (near * far) ** 0.5 if _is_logarithmic(near, far) else (near + far) / 2
    left = BAR_PX + 6
    texts = [
        Text(left, 0, f"{near:.3g}"),
        Text(left, (bottom - LINE_PX) // 2, f"{middle:.3g}"),
        Text(left, bottom - LINE_PX, f"{far:.3g}{'+' if is_cut else ''}"),
        Text(left, bottom + 2, "none"),
    ]
    return legend, texts
