"""Training curves of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotssm.plotting.backend import new_figure, save_figure

NOT_PLOTTED = ("step", "split", "learning_rate", "grad_norm")
BASELINES = {"-repeat-last-frame": "repeat last frame", "-mean-image": "mean image", "-mean-depth": "mean depth"}
"""Suffix and label of the scores of baselines, which are drawn in the panel of the score itself."""
SPLITS = {"train": "training", "val": "validation"}
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "C0", "alpha": 0.8},
    "val": {"color": "C1", "marker": "o", "markersize": 3},
}
"""Looks of the curves of a split, the same in every panel."""
TITLES = {
    "loss": "loss",
    "mse": "mean squared error",
    "slot_contrast": "slot contrast",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "fg-ari": "FG-ARI",
    "ari": "ARI",
    "miou": "mIoU",
    "mbo": "mBO",
    "color-accuracy": "colour accuracy",
    "position-iou": "position IoU",
}
"""Full names of quantities; others are shown by their names."""


def write_curves(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Plot the quantities in metrics.jsonl over the training steps, one panel each.

    Args:
        lines: parsed lines of metrics.jsonl; `split` is `train` or `val`.
        path: picture to write; the suffix decides the format.
        title: title of the figure.
    """
    shown = [name for line in lines for name in line if name not in NOT_PLOTTED and not name.endswith(tuple(BASELINES))]
    names = list(dict.fromkeys(shown))
    figure = new_figure(4.2 * max(1, len(names)), 3.2)
    axes = figure.subplots(1, max(1, len(names)), squeeze=False)[0]
    for name, axis in zip(names, axes, strict=False):
        for split, style in STYLES.items():
            points = _points([line for line in lines if line["split"] == split], name)
            if points:
                axis.plot(*zip(*points, strict=True), label=SPLITS[split], linewidth=1.3, **style)
        for (suffix, label), dashes in zip(BASELINES.items(), ("dashed", "dotted", "dotted"), strict=True):
            baseline = _points(lines, name + suffix)
            if len({value for _, value in baseline}) == 1:
                axis.axhline(baseline[0][1], linestyle=dashes, label=label, linewidth=1.0, color="grey")
            elif baseline:
                axis.plot(*zip(*baseline, strict=True), linestyle=dashes, label=label, linewidth=1.0, color="grey")
        axis.set_xlabel("optimiser step")
        axis.set_title(TITLES.get(name, name))
        axis.grid(alpha=0.3)
        axis.legend()
        if name == "loss" or "mse" in name:
            axis.set_yscale("log")
    figure.suptitle(title)
    save_figure(figure, path)


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Step and value of the lines that have a value of that name."""
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]
