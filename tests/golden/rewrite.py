"""Rewrite the golden files: `python tests/golden/rewrite.py`, then review the difference."""

import tempfile
from pathlib import Path

import typer

FOLDER = Path(__file__).parent


def command_surface() -> str:
    """Every command with its options: scripts depend on them."""
    from slotssm_cli.main import app

    def walk(command, name):
        children = getattr(command, "commands", None)
        if children:
            return [line for child, node in sorted(children.items()) for line in walk(node, f"{name} {child}")]
        return [f"{name} {' '.join(sorted(option for p in command.params for option in p.opts))}"]

    return "\n".join(walk(typer.main.get_command(app), "slotssm")) + "\n"


def parameter_counts() -> str:
    """Parameters of every preset's parts."""
    from slotssm.presets import PRESETS
    from slotssm.tasks import build_task

    lines = []
    for name, function in PRESETS.items():
        parts = {
            part: sum(parameter.numel() for parameter in module.parameters())
            for part, module in build_task(function()).named_children()
        }
        lines.append(f"{name} " + " ".join(f"{part}={count}" for part, count in parts.items()))
    return "\n".join(lines) + "\n"


def first_losses() -> str:
    """Losses of the first steps of the tiny presets: a refactoring must not change them."""
    from generators.writer import generate
    from slotssm.documents import override
    from slotssm.presets import preset
    from slotssm.training.run import RunDirectory, read_lines
    from slotssm.training.trainer import Trainer

    lines = []
    for name in ("tiny-oc", "tiny-bcb"):
        changes = {"train": {"num_steps": 6, "log_every_steps": 1, "eval_every_steps": 0}}
        config = override(preset(name), changes, "golden")
        with tempfile.TemporaryDirectory() as folder:
            data, run = Path(folder) / "data.h5", RunDirectory(Path(folder) / "run")
            generate(config.data, data, workers=1)
            run.create(config, data, "", "cpu", [])
            Trainer(config, data, run, "cpu").train()
            losses = [line["loss"] for line in read_lines(run.metrics)]
        lines.append(f"{name} " + " ".join(f"{loss:.6f}" for loss in losses))
    return "\n".join(lines) + "\n"


GOLDEN = {"cli.txt": command_surface, "parameters.txt": parameter_counts, "losses.txt": first_losses}

if __name__ == "__main__":
    for file, make in GOLDEN.items():
        (FOLDER / file).write_text(make())
