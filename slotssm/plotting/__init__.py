"""Figures and animations from arrays."""

from slotssm.plotting.animation import check_suffix, write_animation
from slotssm.plotting.colors import colorize, slot_colors
from slotssm.plotting.curves import write_curves
from slotssm.plotting.panels import Column, storyboard

__all__ = ["Column", "check_suffix", "colorize", "slot_colors", "storyboard", "write_animation", "write_curves"]
