"""`slotssm reproduce`, `slotssm sweep` and `slotssm status`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError, SlotSSMError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import (
    Meter,
    about_time,
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
Executor = Annotated[str, typer.Option(help="Where cells run: local, or slurm, which submits them as jobs.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Cells at a time.", show_default="1 on this machine, as many as Slurm starts there"),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="Option of sbatch, such as partition=gpu; repeatable."),
]


@dataclass(frozen=True)
class _Execution:
    """How cells are run.

    Attributes:
        executor: `local` or `slurm`.
        jobs: cells at a time; None for the default.
        slurm: settings of jobs as KEY=VALUE.
        command: words of the command line that runs a cell, without the cell.
    """

    executor: str
    jobs: int | None
    slurm: list[str]
    command: list[str]

    def check(self) -> None:
        """Refuse an unknown executor, and settings that it would ignore."""
        if self.executor not in ("local", "slurm"):
            raise InputError(f"--executor {self.executor} is unknown; there are local and slurm")
        if self.slurm and self.executor != "slurm":
            raise InputError("--slurm has no effect without --executor slurm")

    def jobs_of(self, cells: Any, folder: Path, variables: dict[str, str]) -> list[Any]:
        """A job for each cell."""
        from slotssm.experiments.execution.jobs import CellJob

        start = [sys.executable, "-m", "slotssm", *self.command, "--out", str(folder)]
        return [CellJob(cell.name, (*start, "--cell", cell.name), folder.resolve(), variables) for cell in cells]


def _words(command: str, *arguments: str, **chosen: Any) -> list[str]:
    """The words of a command line with these options; options without a value are left out."""
    words = [command, *arguments]
    for name, value in chosen.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, list | tuple):
            words += [word for each in value for word in (option, str(each))]
        elif value is True:
            words.append(option)
        elif value not in (None, False, ""):
            words += [option, str(value)]
    return words


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="long-context, video-prediction, object-centric, slot-ownership, snitch, depth, modularity or "
            "efficiency."
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="cpu: scaled down for two cores; paper: the paper's settings, for a GPU; tiny: seconds; rates: "
            "learning rates of long-context."
        ),
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
            help="Compare on this episode file (object-centric, snitch, depth); repeatable.",
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
    executor: Executor = "local",
    jobs: Jobs = None,
    slurm: Slurm = None,
    retry_failed: RetryFailed = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Reproduce an experiment of the paper: data, training, scores, tables and figures; repeat to continue."""
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.experiments.reproductions.experiment import Choice
    from slotssm.experiments.reproductions.studies.catalog import experiment_of

    choice = Choice(
        scale,
        tuple(options.words(models)),
        tuple(options.whole_numbers(seeds, "--seeds")) if seeds else (),
        tuple(options.whole_numbers(lengths, "--lengths")) if lengths else (),
        tuple(data or ()),
    )
    chosen = experiment_of(experiment, choice)
    folder = out or reproductions.default_folder(experiment, choice)
    words = _words(
        *("reproduce", experiment),
        scale=scale,
        models=models,
        seeds=seeds,
        lengths=lengths,
        data=data,
        plugin=plugin,
        device=device,
        retry_failed=retry_failed,
    )
    execution = _Execution(executor, jobs, slurm or [], words)
    _run_cells(chosen, choice, cell or [], folder, device, retry_failed, dry_run, json, execution)


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
    executor: Executor = "local",
    jobs: Jobs = None,
    slurm: Slurm = None,
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
    words = _words(
        "sweep",
        preset=preset,
        config=config,
        set=assignments,
        seeds=seeds,
        data=data,
        plugin=plugin,
        device=device,
        retry_failed=retry_failed,
    )
    execution = _Execution(executor, jobs, slurm or [], words)
    folder = out or default_folder(chosen)
    _run_cells(chosen, Choice(), cell or [], folder, device, retry_failed, dry_run, json, execution)


def _run_cells(
    experiment: Any,
    choice: Any,
    names: list[str],
    folder: Path,
    device: str,
    retry: bool,
    dry_run: bool,
    json: bool,
    execution: _Execution,
) -> None:
    """Run the named cells of an experiment, or all; print the table and where it is."""
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.training.device import resolve_device
    from slotssm.training.processes import refuse_several_processes

    refuse_several_processes()
    execution.check()
    cells = reproductions.chosen_cells(experiment, choice, names)
    if execution.executor == "local" or dry_run:
        resolve_device(device)
    if dry_run:
        return _report_plan(cells, folder, json)
    if execution.executor == "slurm":
        return _submit(experiment, choice, cells, folder, retry, json, execution)
    if (execution.jobs or 1) > 1:
        failed = _run_side_by_side(experiment, choice, cells, folder, retry, execution)
        made = reproductions.compile_result(experiment, choice, folder)
    else:
        failed, made = [], _run_one_by_one(experiment, choice, cells, folder, device, retry)
    if failed:
        raise SlotSSMError(f"{len(failed)} cells could not be measured: {', '.join(failed)}; {folder}/logs says why")
    if json:
        result_json(made.document())
        return None
    result(made.table.text())
    if made.missing:
        note(f"{made.num_done} cells are done, {len(made.missing)} are missing; repeat the command to continue")
    for file in made.files:
        result(str(file))
    return None


def _run_side_by_side(
    experiment: Any, choice: Any, cells: Any, folder: Path, retry: bool, execution: _Execution
) -> list[str]:
    """Run cells in processes of their own; returns the names of those that crashed."""
    from slotssm.experiments.execution.local import run_side_by_side, threads_each
    from slotssm.experiments.execution.order import predecessors
    from slotssm.experiments.reproductions import reproduce as reproductions

    reproductions.lay_out(experiment, choice, folder)
    left, num_jobs = reproductions.to_do(cells, folder, retry), execution.jobs or 1
    jobs = execution.jobs_of(left, folder, threads_each(num_jobs))
    codes = run_side_by_side(jobs, predecessors(left), num_jobs, note)
    return [name for name, code in codes.items() if code]


def _submit(
    experiment: Any, choice: Any, cells: Any, folder: Path, retry: bool, json: bool, execution: _Execution
) -> None:
    from slotssm.experiments.execution.order import predecessors
    from slotssm.experiments.execution.slurm import settings_of, submit
    from slotssm.experiments.reproductions import reproduce as reproductions

    settings = settings_of(execution.slurm)
    if execution.jobs is not None:
        settings["array_parallelism"] = execution.jobs
    reproductions.lay_out(experiment, choice, folder)
    left = reproductions.to_do(cells, folder, retry)
    ids = submit(execution.jobs_of(left, folder, {}), predecessors(left), folder, settings)
    if json:
        result_json({"folder": str(folder), "jobs": ids})
        return
    for name, number_of_job in ids.items():
        result(f"{number_of_job:<12} {name}")
    note(f"{len(ids)} cells are submitted; `slotssm status {folder}` shows how far they are")


def _run_one_by_one(experiment: Any, choice: Any, cells: Any, folder: Path, device: str, retry: bool) -> Any:
    from slotssm.experiments.reproductions import reproduce as reproductions
    from slotssm.experiments.reproductions.cells import ProgressCallbacks

    meters: list[Meter] = []

    def callbacks_for(index: int, total: int, cell: Any) -> ProgressCallbacks:
        for meter in meters:
            meter.close()
        label = f"[{index + 1}/{total}] {cell.name}"
        meters[:] = [Meter(f"{label}: data", "episodes"), Meter(label, "steps"), Meter(f"{label}: test", "episodes")]
        return ProgressCallbacks(meters[0].update, step_callback(meters[1]), meters[2].update)

    try:
        return reproductions.reproduce(experiment, choice, folder, cells, device, callbacks_for, note, retry)
    finally:
        for meter in meters:
            meter.close()


def _report_plan(cells: Any, folder: Path, json: bool) -> None:
    from slotssm.experiments.overview.forecast import forecast

    with Meter("measure", "cells") as meter:
        plan = forecast(cells, folder, meter.update)
    if json:
        result_json(plan.document())
        return
    for line in plan.cells:
        expected = about_time(line.seconds, line.may_end_early)
        cost = f"{line.num_steps:>7} steps  {line.parameters:>9,} parameters  {expected}"
        cost = cost if line.num_steps else "to be measured"
        result(f"{line.name:<48} {'done' if line.done else cost}")
    left = [line for line in plan.cells if not line.done]
    result(
        f"{len(left)} of {len(plan.cells)} cells to do, {about_time(plan.seconds, plan.may_end_early)} of training "
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
        rows.append((cell.name, cell.state, steps, left, cell.reason or cell.log or _line(cell.latest)))
    result_table("", ("cell", "state", "steps", "left", "last line"), rows)
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    result(f"{len(found.cells)} cells: {counts}")


def _line(latest: dict[str, Any] | None) -> str:
    """The values of a line of metrics.jsonl."""
    values = {name: value for name, value in (latest or {}).items() if isinstance(value, float)}
    return "  ".join(f"{name} {number(value)}" for name, value in values.items() if name != "learning_rate")
