"""Training curves of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotssm.plotting.backend import new_figure, save_figure

NOT_PLOTTED = ("step", "split", "learning_rate", "grad_norm")
BASELINE_SUFFIX = "-repeat-last-frame"
"""Suffix of the score of repeating the last context frame, which is drawn in the panel of the score itself."""


def write_curves(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Plot the quantities in metrics.jsonl over the training steps, one panel each.

    Args:
        lines: parsed lines of metrics.jsonl; `split` is `train` or `val`.
        path: picture to write.
        title: title of the figure.
    """
    shown = [name for line in lines for name in line if name not in NOT_PLOTTED and not name.endswith(BASELINE_SUFFIX)]
    names = list(dict.fromkeys(shown))
    figure = new_figure(4.2 * max(1, len(names)), 3.2)
    axes = figure.subplots(1, max(1, len(names)), squeeze=False)[0]
    for name, axis in zip(names, axes, strict=False):
        for split, style in (("train", {"alpha": 0.8}), ("val", {"marker": "o", "markersize": 3})):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            if points:
                axis.plot(*zip(*points, strict=True), label=split, linewidth=1.3, **style)
        baseline = [(line["step"], line[name + BASELINE_SUFFIX]) for line in lines if name + BASELINE_SUFFIX in line]
        if baseline:
            axis.plot(*zip(*baseline, strict=True), "--", label="repeat last frame", linewidth=1.0, color="grey")
        axis.set_xlabel("step")
        axis.set_title(name)
        axis.grid(alpha=0.3)
        axis.legend()
        if name == "loss" or "mse" in name:
            axis.set_yscale("log")
    figure.suptitle(title)
    save_figure(figure, path)
