"""`slotssm visualize`."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import result, result_json


def visualize(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | DATA]", help="Run directory or episode file.", show_default="the newest run in runs/"
        ),
    ] = None,
    episodes: Annotated[
        str | None, typer.Option(help="Episodes to show, comma-separated.", show_default="the first three")
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write: a video (.gif, .mp4), or up to six frames on a page (.png, .pdf, .svg).",
            show_default="in RUN/figures, or beside the episode file",
        ),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw input, truth, prediction and slots of a run, and its training curves; or draw a data set."""
    from slotssm.experiments import drawing
    from slotssm.training.device import resolve_device
    from slotssm.training.run import RunDirectory, newest_run

    chosen = None if episodes is None else options.whole_numbers(episodes, "--episodes")
    device = resolve_device(device)
    if path is not None and not path.exists():
        raise InputError(f"{path} does not exist; give a run directory or an episode file")
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
