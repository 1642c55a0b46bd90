"""Rewrite the golden files: `python tests/golden/rewrite.py`, then review the difference."""

import tempfile
from pathlib import Path

import typer

from slotssm.config import RunConfig

FOLDER = Path(__file__).parent


def command_surface() -> str:
    """Every command with its options: scripts depend on them."""
    from slotssm_cli.commands import app

    def walk(command, name):
        children = getattr(command, "commands", None)
        if children:
            return [line for child, node in sorted(children.items()) for line in walk(node, f"{name} {child}")]
        return [f"{name} {' '.join(sorted(option for p in command.params for option in p.opts))}"]

    return "\n".join(walk(typer.main.get_command(app), "slotssm")) + "\n"


def tiny_runs() -> dict[str, RunConfig]:
    """The tiny presets, and one of them with every other time mixer."""
    from slotssm.documents import override
    from slotssm.experiments.presets import preset

    runs = {name: preset(name) for name in ("tiny-oc", "tiny-bcb")}
    for kind in ("mamba2", "s4d", "s5"):
        runs[f"tiny-bcb-{kind}"] = override(runs["tiny-bcb"], {"model": {"time_mixer": {"kind": kind}}}, "golden")
    return runs


def parameter_counts() -> str:
    """Parameters of the parts of every preset and tiny run."""
    from slotssm.experiments.datasets import spec_of
    from slotssm.experiments.presets import PRESETS
    from slotssm.tasks import build_task

    lines = []
    for name, config in ({name: function() for name, function in PRESETS.items()} | tiny_runs()).items():
        parts = {
            part: sum(parameter.numel() for parameter in module.parameters())
            for part, module in build_task(config, spec_of(config.data)).named_children()
        }
        lines.append(f"{name} " + " ".join(f"{part}={count}" for part, count in parts.items()))
    return "\n".join(lines) + "\n"


def first_losses() -> str:
    """Losses of the first steps of the tiny runs: a refactoring must not change them."""
    from generators.writer import generate
    from slotssm.documents import override
    from slotssm.experiments.datasets import spec_of
    from slotssm.training.run import RunDirectory, read_lines
    from slotssm.training.trainer import Trainer

    lines = []
    for name, tiny in tiny_runs().items():
        changes = {"train": {"num_steps": 6, "log_every_steps": 1, "eval_every_steps": 0}}
        config = override(tiny, changes, "golden")
        with tempfile.TemporaryDirectory() as folder:
            data, run = Path(folder) / "data.h5", RunDirectory(Path(folder) / "run")
            generate(config.data, data, workers=1)
            run.path.mkdir()
            Trainer(config, spec_of(config.data), data, run, "cpu").train()
            losses = [line["loss"] for line in read_lines(run.metrics)]
        lines.append(f"{name} " + " ".join(f"{loss:.6f}" for loss in losses))
    return "\n".join(lines) + "\n"


GOLDEN = {"cli.txt": command_surface, "parameters.txt": parameter_counts, "losses.txt": first_losses}

if __name__ == "__main__":
    for file, make in GOLDEN.items():
        (FOLDER / file).write_text(make())
