"""Figures and animations from arrays."""

from slotssm.plotting.animation import (
    FOR_PAPERS,
    check_suffix,
    read_picture,
    write_gif,
    write_page,
    write_picture,
    write_storyboard,
)
from slotssm.plotting.backend import new_figure, save_figure
from slotssm.plotting.beliefs import belief_columns, paint_belief
from slotssm.plotting.colors import colorize, fade, overlay, slot_colors
from slotssm.plotting.comparisons import (
    Bar,
    Curve,
    model_name,
    write_bars,
    write_line_panels,
    write_lines,
)
from slotssm.plotting.curves import write_curves
from slotssm.plotting.depth import depth_columns
from slotssm.plotting.masks import paint_masks
from slotssm.plotting.palettes import flat_colors
from slotssm.plotting.panels import Column, Page, Storyboard, Text, label_rows
from slotssm.plotting.videos import VideoWriter, enlarged

__all__ = [
    "FOR_PAPERS",
    "Bar",
    "Column",
    "Curve",
    "Page",
    "Storyboard",
    "Text",
    "VideoWriter",
    "belief_columns",
    "check_suffix",
    "colorize",
    "depth_columns",
    "enlarged",
    "fade",
    "flat_colors",
    "label_rows",
    "model_name",
    "new_figure",
    "overlay",
    "paint_belief",
    "paint_masks",
    "read_picture",
    "save_figure",
    "slot_colors",
    "write_bars",
    "write_curves",
    "write_gif",
    "write_line_panels",
    "write_lines",
    "write_page",
    "write_picture",
    "write_storyboard",
]
