"""`slotssm report`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, human_bytes, note, result, result_json


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN ... | REPRODUCTION | DATA",
            help="Run directories, the folder of a reproduction, or an episode file.",
            show_default="the newest run in runs/",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    episodes: Annotated[int, typer.Option("--episodes", min=0, help="Number of episodes to show of each run.")] = 6,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Score that chooses the worst and best episodes.", show_default="fg-ari, or else mse"
        ),
    ] = None,
    data: options.Data = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split to show episodes of.", show_default="the first of test, val, train"),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a self-contained HTML page: curves, scores, episodes frame by frame, configuration, provenance."""
    from slotssm.experiments.reports.report import write_report
    from slotssm.experiments.reports.runs import RunsRequest
    from slotssm.training.device import resolve_device
    from slotssm.training.run import newest_run

    request = RunsRequest(data, split, episodes, metric, resolve_device(device))
    chosen = paths or [newest_run().path]
    with Meter("score", "episodes") as meter:
        written = write_report(chosen, out, request, typed, force, meter.update)
    for text in written.notes:
        note(text)
    if json:
        result_json(written.document())
    else:
        result(f"{written.path}  {human_bytes(written.num_bytes)}")


def typed(command: Any) -> str:
    """A command of the core (`slotssm.experiments.reports.command.Command`) as it is typed, with the loaded plugins."""
    from slotssm.plugins import loaded_plugins

    words = ["slotssm", command.name, *command.arguments]
    for name, value in command.options.items():
        for each in (value,) if isinstance(value, str) else value:
            words += [f"--{name.replace('_', '-')}", each]
    for plugin in loaded_plugins():
        words += ["--plugin", str(plugin)]
    return shlex.join(words) + (f"  # {command.purpose}" if command.purpose else "")
