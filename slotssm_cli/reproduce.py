"""`slotssm reproduce`, `slotssm sweep` and `slotssm status`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import (
    Meter,
    human_bytes,
    human_seconds,
    note,
    number,
    result,
    result_json,
    result_table,
)
from slotssm_cli.train import step_callback

Cells = Annotated[
    list[str] | None,
    typer.Option("--cell", help="Cell to run, as listed by --dry-run; repeatable.", show_default="all"),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed cells again, for example after running out of memory.")
]


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(help="long-context, video-prediction, object-centric, slot-ownership or efficiency."),
    ],
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
    cell: Cells = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the reproduction.", show_default="reproductions/EXPERIMENT-SCALE"),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    retry_failed: RetryFailed = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Reproduce an experiment of the paper: data, training, scores, tables and figures; repeat to continue."""
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.experiments.reproductions.experiment import Choice

    choice = Choice(
        scale,
        tuple(options.words(models)),
        tuple(options.whole_numbers(seeds, "--seeds")) if seeds else (),
        tuple(options.whole_numbers(lengths, "--lengths")) if lengths else (),
        tuple(data or ()),
    )
    chosen = reproductions.experiment_of(experiment, choice)
    folder = out or reproductions.default_folder(experiment, choice)
    _run_cells(chosen, choice, cell or [], folder, device, retry_failed, dry_run, json)


def sweep(
    preset: Annotated[str | None, typer.Option(help="Preset to start from; see `slotssm presets`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with changes to the preset, or a complete configuration.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="KEY.PATH=VALUE, or KEY.PATH=VALUE,VALUE,... to run every one of them, for example "
            "model.num_slots=4,6; lists in brackets; repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds of every combination, for example 0,1,2.", show_default="the preset's")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Episode file, generated or imported.", show_default="the preset's own data"),
    ] = None,
    cell: Cells = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the sweep.", show_default="sweeps/NAME")] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    retry_failed: RetryFailed = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train and score a run with several seeds and values of its settings, then compare; repeat to continue."""
    from slotssm.experiments.reproductions.experiment import Choice
    from slotssm.experiments.reproductions.sweep import Sweep, default_folder
    from slotssm.experiments.resolve import Request

    request = Request(preset, config, tuple(assignments or ()), data)
    chosen = Sweep(request, options.whole_numbers(seeds, "--seeds") if seeds else ())
    _run_cells(chosen, Choice(), cell or [], out or default_folder(chosen), device, retry_failed, dry_run, json)


def _run_cells(
    experiment: Any, choice: Any, names: list[str], folder: Path, device: str, retry: bool, dry_run: bool, json: bool
) -> None:
    """Run the named cells of an experiment, or all; print the table and where it is."""
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.experiments.reproductions.cells import ProgressCallbacks
    from slotssm.training.device import resolve_device

    cells = reproductions.chosen_cells(experiment, choice, names)
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
        made = reproductions.reproduce(experiment, choice, folder, cells, device, callbacks_for, note, retry)
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


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a reproduction or a sweep.")],
    json: options.Json = False,
) -> None:
    """Show which cells of a reproduction or a sweep are done, running, waiting or failed."""
    from slotssm.experiments.overview.progress import progress_of

    found = progress_of(folder)
    if json:
        result_json(found.document())
        return
    rows = []
    for cell in found.cells:
        steps = "" if cell.num_steps is None else f"{cell.step} / {cell.num_steps}"
        left = "" if cell.seconds_left is None else human_seconds(cell.seconds_left)
        rows.append((cell.name, cell.state, steps, left, cell.reason or _line(cell.latest)))
    result_table("", ("cell", "state", "steps", "left", "last line"), rows)
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    result(f"{len(found.cells)} cells: {counts}")


def _line(latest: dict[str, Any] | None) -> str:
    """The values of a line of metrics.jsonl."""
    values = {name: value for name, value in (latest or {}).items() if isinstance(value, float)}
    return "  ".join(f"{name} {number(value)}" for name, value in values.items() if name != "learning_rate")
