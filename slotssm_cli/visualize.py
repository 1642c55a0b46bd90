"""`slotssm visualize`."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm.errors import InputError
from slotssm_cli import options
from slotssm_cli.terminal.console import result, result_json


def visualize(
    path: Annotated[
        Path | None, typer.Argument(metavar="[RUN | DATA]", help="A run directory or an episode file; the newest run.")
    ] = None,
    episodes: Annotated[str | None, typer.Option(help="Episodes to show, comma-separated; the first three.")] = None,
    data: options.Data = None,
    split: options.Split = "test",
    out: Annotated[
        Path | None, typer.Option("--out", help="A .gif, .mp4 or .png; by default in RUN/figures, or beside DATA.")
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw input, truth, prediction and every slot of a run with its training curves; or a data set alone."""
    from slotssm.experiments import drawing
    from slotssm.training.device import resolve_device
    from slotssm.training.run import RunDirectory, newest_run

    chosen = None if episodes is None else options.whole_numbers(episodes, "--episodes")
    device = resolve_device(device)
    if path is not None and not path.exists():
        raise InputError(f"{path} does not exist; name a run directory or an episode file")
    if path is not None and path.is_file():
        written = drawing.draw_file(path, split, chosen, out, force)
    else:
        run = RunDirectory(path) if path is not None else newest_run()
        written = drawing.draw_run(run, data, split, chosen, out, force, device)
    if json:
        result_json({"files": [str(file) for file in written]})
    else:
        for file in written:
            result(str(file))
