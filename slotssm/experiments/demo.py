"""The demo: OC-SlotSSM learns to segment bouncing shapes without labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import Report, ScoringOptions, TaskSource, evaluate
from slotssm.evaluation.evaluate import possible_metrics
from slotssm.evaluation.pictures import draw_predictions
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.drawing import draw_run, flat_colors_of
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import evaluate_run, resume_run, start_run
from slotssm.plotting import write_storyboard
from slotssm.tasks import build_task
from slotssm.training.checkpoint import load_task
from slotssm.training.run import RunDirectory
from slotssm.training.trainer import StepReport

PRESET = "demo"
EPISODES = (0, 1, 2)
FRESH_SEED = 1_000_000
"""Added to the seed of the videos that a trained model is shown, which differ from those that it was trained on."""
NUM_FRESH = 20
"""Number of these videos."""
METRICS = ("fg-ari", "miou", "mse", "log-depth-mse")
"""Scores of a trained model on them, as far as its task has them."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        run: run directory.
        data: episode file.
        report: scores on the test split.
        animation: GIF of input, truth, reconstruction and slots.
        curves: picture of the training curves.
    """

    run: Path
    data: Path
    report: Report
    animation: Path
    curves: Path


def run_demo(
    folder: Path,
    seed: int,
    preset_name: str = PRESET,
    on_generate: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    on_evaluate: Callable[[int, int], None] = lambda done, total: None,
) -> DemoResult:
    """Generate, train, evaluate and draw in `folder`; data and training that are complete are reused.

    Raises:
        InputError: the preset's task has no masks to score and draw.
    """
    config = preset(preset_name).replace(seed=seed)
    with torch.device("meta"):
        outputs = build_task(config, spec_of(config.data)).outputs
    if "masks" not in outputs:
        raise InputError(f"`preset` {preset_name} has no masks to show; choose one of an object-centric model")
    data = ensure_own_data(config, folder / "data", on_generate)
    run = RunDirectory(folder / "runs" / f"{config.name}-seed{seed}")
    if run.record.exists():
        resume_run(run, "auto", on_step, data)
    else:
        start_run(config, spec_of(config.data), data, run, "auto", on_step)
    report = evaluate_run(run, data, "test", (), ScoringOptions(), "cpu", on_evaluate)
    animation, curves = draw_run(run, data, "test", EPISODES, run.figures / "slots.gif", force=True)
    return DemoResult(run.path, data, report, animation, curves)


@dataclass(frozen=True)
class PretrainedResult:
    """Results of the demo of a trained model.

    Attributes:
        checkpoint: folder of the weights.
        data: episode file of fresh videos.
        report: scores on them.
        animation: GIF of input, truth, reconstruction and slots.
    """

    checkpoint: Path
    data: Path
    report: Report
    animation: Path


def show_pretrained(folder: Path, seed: int, name: str = PRESET) -> PretrainedResult:
    """Run a trained model of the package on new videos, which are scored and drawn in `folder`.

    Args:
        folder: folder for the videos and the picture.
        seed: the videos differ with it.
        name: name of the checkpoint in `slotssm_zoo`.

    Raises:
        InputError: there is no such checkpoint.
    """
    try:
        from slotssm_zoo import checkpoint as checkpoint_of

        checkpoint = checkpoint_of(name)
    except ImportError:
        raise InputError("the trained models are not installed; train one with `demo` without `pretrained`") from None
    except KeyError as error:
        raise InputError(f"`preset` {name}: {error.args[0]}") from None
    task, description = load_task(checkpoint)
    config = description.config
    assert isinstance(config.data, RecipeData)
    fresh = config.data.replace(seed=config.data.seed + FRESH_SEED + seed, num_train=0, num_val=0, num_test=NUM_FRESH)
    data = ensure_own_data(config.replace(data=fresh), folder / "data")
    with EpisodeFile(data) as truth:
        source = TaskSource(task)
        possible = possible_metrics(source, truth, "test")
        report = evaluate(source, truth, "test", [name for name in METRICS if name in possible], ScoringOptions())
        board, exact = draw_predictions(task, truth, "test", EPISODES), flat_colors_of(truth, "test", EPISODES)
    animation = folder / f"pretrained-{name}-seed{seed}.gif"
    write_storyboard(board, animation, exact_colors=exact)
    return PretrainedResult(checkpoint, data, report, animation)
