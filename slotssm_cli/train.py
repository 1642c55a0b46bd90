"""`slotssm train` and `slotssm presets`."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import (
    Meter,
    about_time,
    human_bytes,
    note,
    number,
    result,
    result_facts,
    result_json,
    result_table,
)


def train(
    preset: Annotated[str | None, typer.Option(help="Preset to start from; see `slotssm presets`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with changes to the preset, or a complete configuration.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY.PATH=VALUE, for example train.num_steps=500; repeatable."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Episode file, generated or imported.", show_default="the preset's own data"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="the next free runs/NAME-001")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of weights and batches.", show_default="the preset's")
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Run or checkpoint whose weights to start from.", show_default="random weights"),
    ] = None,
    keep_best: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Also keep the checkpoint that validates best, for example by mse."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", help="Also log to tensorboard or wandb (offline); repeatable.", show_default="off"),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    extend: Annotated[
        int | None, typer.Option("--extend", min=1, metavar="N", help="Train a complete run N more steps.")
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a model; --resume continues an interrupted run exactly, --extend a complete one."""
    from slotssm.experiments import resolve
    from slotssm.training.device import resolve_device
    from slotssm.training.processes import joined, refuse_several_processes
    from slotssm.training.run import RunDirectory, newest_run

    assigned = (*(assignments or ()), *_shorthands(init_from, keep_best, track))
    request = resolve.Request(preset, config, assigned, data, seed)
    run = RunDirectory(out) if out else None
    if resume and extend:
        raise InputError("--extend trains a complete run further and --resume an interrupted one; leave one out")
    device = resolve_device(device)
    if dry_run:
        refuse_several_processes()
    with joined(device) as processes:
        if (resume or extend) and run is None:
            run = processes.from_first(newest_run)
        if extend and run is not None:
            if request != resolve.Request(data=data) or force:
                raise processes.voiced(
                    InputError("--extend trains a run with its own configuration; give only --out, --data and --device")
                )
            return _extend(run, extend, device, data, dry_run, json, processes)
        if resume and run is not None and processes.from_first(run.record.exists):
            return _resume(request, run, device, dry_run, json, processes)
        if resume and run is not None and preset is None and config is None:
            raise processes.voiced(InputError(f"{run.path} holds no run to resume; --preset NAME starts one"))
        return _start(request, run, device, force, dry_run, json, processes)


def _start(request: Any, run: Any, device: str, force: bool, dry_run: bool, json: bool, processes: Any) -> None:
    from slotssm.experiments import resolve, runs
    from slotssm.experiments.datasets import ensure_own_data, own_data_path
    from slotssm.training.best import warn_of_labels
    from slotssm.training.run import next_run, reserve_run

    resolved, spec = processes.first_before_others(lambda: resolve.resolve(request))
    planned, path = run or processes.from_first(lambda: next_run(resolved.name)), own_data_path(resolved)
    # before data is made, which may take long
    processes.from_first(lambda: runs.check_start(resolved, spec, path, planned, force))
    if dry_run:
        warn_of_labels(resolved.train.keep_best)
        facts = resolve.plan(resolved, spec)
        return _report_plan(facts, _cost(resolved, spec, path), planned.path, json)
    with Meter("generate data", "episodes") as meter:
        data = processes.first_before_others(lambda: ensure_own_data(resolved, on_progress=meter.update))
    run = run or processes.from_first(lambda: reserve_run(resolved.name))
    if processes.is_first:
        note(f"data {data}")
    with Meter(f"train {run.path}", "steps") as meter:
        on_step = step_callback(meter, processes)
        values = runs.start_run(resolved, spec, data, run, device, on_step, force, processes)
    return _report(run.path, values, json, processes)


def _resume(request: Any, run: Any, device: str, dry_run: bool, json: bool, processes: Any) -> None:
    from slotssm.experiments import resolve, runs

    processes.from_first(lambda: resolve.check_same(request, run))
    if dry_run:
        return _report_plan(*_known_plan(run, request.data, 0), run.path, json)
    was_complete = run.is_complete()
    with Meter(f"train {run.path}", "steps") as meter:
        values = runs.resume_run(run, device, step_callback(meter, processes), request.data, processes)
    if was_complete and processes.is_first:
        total = run.num_steps()
        note(f"{run.path} was complete already: all {total} steps are taken; --extend N adds more")
    return _report(run.path, values, json, processes)


def _shorthands(init_from: Path | None, keep_best: str | None, track: list[str] | None) -> list[str]:
    """Options that stand for settings, as assignments."""
    from slotssm.config import TRACKERS
    from slotssm.documents import nearest

    trackers = [name for group in track or () for name in options.words(group)]
    for name in trackers:
        if name not in TRACKERS:
            raise InputError(f"--track {name} is unknown; {nearest(name, TRACKERS)}")
    named = {"initial.run": str(init_from or ""), "keep_best": keep_best, "trackers": trackers}
    return [f"train.{key}={jsonlib.dumps(value)}" for key, value in named.items() if value]


def _extend(
    run: Any, num_steps: int, device: str, data: Path | None, dry_run: bool, json: bool, processes: Any
) -> None:
    from slotssm.experiments import runs

    if dry_run:
        runs.refuse_incomplete(run)
        return _report_plan(*_known_plan(run, data, num_steps), run.path, json)
    with Meter(f"train {run.path}", "steps") as meter:
        values = runs.extend_run(run, num_steps, device, step_callback(meter, processes), data, processes)
    return _report(run.path, values, json, processes)


def step_callback(meter: Meter, processes: Any = None) -> Any:
    """A callback that shows losses in the meter, and messages above it; of several processes, the first shows them."""

    def on_step(report: Any) -> None:
        if processes is not None and not processes.is_first:
            return
        if report.message:
            meter.say(report.message)
        elif "loss" in report.values:
            meter.update(report.step, report.num_steps, f"loss {report.values['loss']:.4g}")

    return on_step


def _report(run: Path, values: dict[str, float], json: bool, processes: Any) -> None:
    if not processes.is_first:
        return
    if json:
        result_json({"run": str(run), "values": values})
    else:
        shown = "  ".join(f"{name} {number(value)}" for name, value in values.items() if name != "learning_rate")
        result(f"{run}  {shown}".rstrip())


def _known_plan(run: Any, data: Path | None, further_steps: int) -> tuple[dict[str, Any], Any]:
    """Facts of a run that exists, and the cost of the steps that it has yet to take."""
    from slotssm.experiments import resolve
    from slotssm.experiments.overview.listing import state_of
    from slotssm.experiments.runs import data_of

    known, path = run.description(), data_of(run, data)
    facts = resolve.plan(known.config, known.spec, path)
    total = run.num_steps() + further_steps
    config = known.config.replace(train=known.config.train.replace(num_steps=total))
    return {**facts, "num_steps": total}, _cost(config, known.spec, path, state_of(run).step)


def _cost(config: Any, spec: Any, data: Path, first_step: int = 0) -> Any:
    from slotssm.experiments.measurement.cost import cost_of_run

    note("timing a few steps on this machine")
    return cost_of_run(config, spec, data, first_step)


def _report_plan(facts: dict[str, Any], cost: Any, run: Path, json: bool) -> None:
    if json:
        result_json({"dry_run": True, "run": str(run), **facts, "cost": cost.document()})
        return
    shown = f"about {human_bytes(cost.checkpoint_bytes)} of checkpoints"
    result_facts(
        {
            "run": str(run),
            **facts,
            "time": f"{about_time(cost.seconds, cost.may_end_early)} on this machine's processor when otherwise idle",
            "memory": f"about {human_bytes(cost.memory_bytes)} for training, besides the libraries",
            "disk": shown + (f", {human_bytes(cost.data_bytes)} of data" if cost.data_bytes else ""),
        }
    )


def presets(
    name: Annotated[str | None, typer.Argument(help="Preset to print as TOML.", show_default="list all")] = None,
    json: options.Json = False,
) -> None:
    """List the presets, or print one as a TOML file that describes every key."""
    from slotssm.documents import as_described_toml
    from slotssm.experiments.presets import PRESETS, preset

    if name is not None:
        run = preset(name)
        if json:
            result_json(run.model_dump(mode="json"))
        else:
            result(as_described_toml(run))
        return
    described = {key: (function.__doc__ or "").partition("\n")[0] for key, function in PRESETS.items()}
    if json:
        result_json(described)
    else:
        result_table("presets", ("name", "description"), list(described.items()))
