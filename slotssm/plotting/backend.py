"""Matplotlib without a display: figures are drawn with Agg, whichever backend the environment names."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slotssm.files import atomic

DOTS_PER_INCH = 300


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Import matplotlib without warnings about its cache folder, and without the backend named in MPLBACKEND.

    Programs started from a notebook inherit its MPLBACKEND, and importing matplotlib fails if that backend is not
    installed. The setting is restored after the import, for other users of matplotlib in this process.
    """
    if "matplotlib" in sys.modules:
        yield
        return
    log, wanted = logging.getLogger("matplotlib"), os.environ.pop("MPLBACKEND", None)
    level = log.level
    # matplotlib warns at length when it has to use a temporary cache folder
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        import matplotlib

        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted


with _undisturbed():
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

__all__ = ["DOTS_PER_INCH", "Rectangle", "new_figure", "save_figure"]


def new_figure(width: float, height: float) -> Any:
    """A figure of `width` x `height` inches on an Agg canvas."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure; the suffix of `path` decides the format, and the same figure gives the same bytes."""
    # a date would differ each time
    dateless = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower(), {})
    with rc_context({"svg.hashsalt": "slotssm", "pdf.fonttype": 42, "svg.fonttype": "none"}), atomic(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=dateless)
