"""Pictures of runs and data sets, with default paths."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.pictures import FIRST_EPISODES, draw_data, draw_predictions
from slotssm.experiments.runs import check_fits, data_of, load_run
from slotssm.files import make_folder, refuse_existing
from slotssm.plotting import FOR_PAPERS, check_suffix, flat_colors, write_curves, write_storyboard
from slotssm.training.run import RunDirectory, read_lines


def draw_run(
    run: RunDirectory,
    data: Path | None,
    split: str,
    episodes: Sequence[int] | None = None,
    out: Path | None = None,
    force: bool = False,
    device: str = "cpu",
) -> list[Path]:
    """Draw predictions and training curves of a run.

    Without `out` both are written to the run's folder of figures, replacing earlier ones; with `out` the curves are
    written beside the animation.

    Returns:
        Paths of the animation and of the curves.
    """
    target = run.figures / f"{split}.gif" if out is None else _target(out, force)
    suffix = target.suffix if target.suffix.lower() in FOR_PAPERS else ".png"
    curves = target.with_name("curves.png" if out is None else f"{target.stem}-curves{suffix}")
    if out is not None:
        refuse_existing(curves, force)
    task, config, _ = load_run(run, device)
    with EpisodeFile(data_of(run, data)) as truth:
        check_fits(config, run.description().spec, truth)
        board = draw_predictions(task, truth, split, episodes)
        exact = flat_colors_of(truth, split, episodes)
    lines = read_lines(run.metrics)
    make_folder(target.parent)
    write_storyboard(board, target, exact_colors=exact)
    write_curves(lines, curves, run.path.name)
    return [target, curves]


def draw_file(
    data: Path, split: str, episodes: Sequence[int] | None = None, out: Path | None = None, force: bool = False
) -> list[Path]:
    """Draw a data set, by default as a GIF beside the file."""
    target = _target(out or data.with_name(f"{data.stem}-{split}.gif"), force)
    with EpisodeFile(data) as truth:
        board = draw_data(truth, split, episodes)
        exact = flat_colors_of(truth, split, episodes)
    make_folder(target.parent)
    write_storyboard(board, target, exact_colors=exact)
    return [target]


def flat_colors_of(truth: EpisodeFile, split: str, episodes: Sequence[int] | None) -> np.ndarray:
    """Flat colours of the episodes that are shown, uint8 [C, 3]."""
    shown = range(min(FIRST_EPISODES, truth.num_episodes(split))) if episodes is None else episodes
    return flat_colors(np.stack([truth.read(split, "frames", index) for index in shown]))


def _target(out: Path, force: bool) -> Path:
    """Check the path to write; existing files are refused without `force`."""
    check_suffix(out)
    if out.is_dir():
        raise InputError(f"`out` {out} is a folder; name a file in it")
    refuse_existing(out, force)
    return out
