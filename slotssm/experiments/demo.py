"""The demo: OC-SlotSSM learns to segment bouncing shapes without labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slotssm.evaluation import Report, ScoringOptions
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.drawing import draw_run
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import evaluate_run, resume_run, start_run
from slotssm.training.run import RunDirectory
from slotssm.training.trainer import StepReport

PRESET = "cpu-oc"
EPISODES = (0, 1, 2)


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
    """Generate, train, evaluate and draw in `folder`; data and training that are complete are reused."""
    config = preset(preset_name).replace(seed=seed)
    data = ensure_own_data(config, folder / "data", on_generate)
    run = RunDirectory(folder / "runs" / f"{config.name}-seed{seed}")
    if run.record.exists():
        resume_run(run, "auto", on_step)
    else:
        start_run(config, spec_of(config.data), data, run, "auto", on_step)
    report = evaluate_run(run, None, "test", (), ScoringOptions(), "cpu", on_evaluate)
    animation, curves = draw_run(run, None, "test", EPISODES, run.figures / "slots.gif", force=True)
    return DemoResult(run.path, data, report, animation, curves)
