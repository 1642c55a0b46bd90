"""`slotssm reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm_cli import options
from slotssm_cli.terminal.console import Meter, human_bytes, human_seconds, note, result, result_json
from slotssm_cli.train import step_callback


def reproduce(
    experiment: Annotated[str, typer.Argument(help="long-context, video-prediction, object-centric or efficiency.")],
    scale: Annotated[
        str, typer.Option(help="cpu: scaled down for two cores; paper: the paper's settings, for a GPU.")
    ] = "cpu",
    models: Annotated[str, typer.Option(help="Models, comma-separated.", show_default="all")] = "",
    seeds: Annotated[
        str, typer.Option(help="Seeds of every model, for example 0,1,2.", show_default="those of the scale")
    ] = "",
    lengths: Annotated[str, typer.Option(help="Sequence lengths L, comma-separated.", show_default="all")] = "",
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="Compare on this episode file (object-centric); repeatable.",
            show_default="the experiment's own data",
        ),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", help="Cell to run, as listed by --dry-run; repeatable.", show_default="all"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the reproduction.", show_default="reproductions/EXPERIMENT-SCALE"),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed cells again, for example after running out of memory.")
    ] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Reproduce an experiment of the paper: data, training, scores, tables and figures; repeat to continue."""
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.experiments.reproductions.cells import ProgressCallbacks
    from slotssm.experiments.reproductions.experiment import Choice
    from slotssm.training.device import resolve_device

    choice = Choice(
        scale,
        tuple(options.words(models)),
        tuple(options.whole_numbers(seeds, "--seeds")) if seeds else (),
        tuple(options.whole_numbers(lengths, "--lengths")) if lengths else (),
        tuple(data or ()),
    )
    chosen = reproductions.experiment_of(experiment, choice)
    cells = reproductions.chosen_cells(chosen, choice, cell or [])
    folder = out or reproductions.default_folder(experiment, choice)
    resolve_device(device)
    if dry_run:
        return _report_plan(cells, folder, json)
    meters: list[Meter] = []

    def callbacks_for(index: int, total: int, cell: Any) -> ProgressCallbacks:
        for meter in meters:
            meter.close()
        label = f"[{index + 1}/{total}] {cell.name}"
        meters[:] = [Meter(f"{label}: data", "episodes"), Meter(label, "steps"), Meter(f"{label}: test", "episodes")]
        return ProgressCallbacks(meters[0].update, step_callback(meters[1]), meters[2].update)

    try:
        made = reproductions.reproduce(chosen, choice, folder, cells, device, callbacks_for, note, retry_failed)
    finally:
        for meter in meters:
            meter.close()
    if json:
        result_json(made.document())
        return None
    result(made.table.text())
    if made.missing:
        note(f"{made.num_done} cells are done, {len(made.missing)} are missing; repeat the command to continue")
    for file in made.files:
        result(str(file))
    return None


def _report_plan(cells: Any, folder: Path, json: bool) -> None:
    from slotssm.experiments.reproductions.forecast import forecast

    with Meter("measure", "cells") as meter:
        plan = forecast(cells, folder, meter.update)
    if json:
        result_json(plan.document())
        return
    for line in plan.cells:
        cost = f"{line.num_steps:>7} steps  {line.parameters:>9,} parameters  about {human_seconds(line.seconds)}"
        cost = cost if line.num_steps else "to be measured"
        result(f"{line.name:<48} {'done' if line.done else cost}")
    left = [line for line in plan.cells if not line.done]
    result(
        f"{len(left)} of {len(plan.cells)} cells to do, about {human_seconds(plan.seconds)} of training "
        f"on this machine when otherwise idle, {human_bytes(plan.disk_bytes)} in {folder}"
    )
