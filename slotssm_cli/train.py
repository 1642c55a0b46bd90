"""`slotssm train` and `slotssm presets`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm_cli import options
from slotssm_cli.terminal.console import Meter, note, number, result, result_facts, result_json, result_table


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
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a model; --resume continues an interrupted run exactly."""
    from slotssm.experiments import resolve, runs
    from slotssm.experiments.datasets import ensure_own_data
    from slotssm.training.device import resolve_device
    from slotssm.training.run import RunDirectory, newest_run, next_run, reserve_run

    request = resolve.Request(preset, config, tuple(assignments or ()), data, seed)
    run = RunDirectory(out) if out else None
    if resume and run is None:
        run = newest_run()
    if resume and run is not None and run.record.exists():
        resolve.check_same(request, run)
        if dry_run:
            known = run.description()
            return _report_plan(resolve.plan(known.config, known.spec, data or run.data()), run.path, json)
        with Meter(f"train {run.path}", "steps") as meter:
            values = runs.resume_run(run, device, step_callback(meter), data)
        return _report(run.path, values, json)
    resolved, spec = resolve.resolve(request)
    if dry_run:
        return _report_plan(resolve.plan(resolved, spec), (run or next_run(resolved.name)).path, json)
    resolve_device(device)
    if run is not None:
        runs.refuse_used(run, force)
    with Meter("generate data", "episodes") as meter:
        data = ensure_own_data(resolved, on_progress=meter.update)
    note(f"data {data}")
    run = run or reserve_run(resolved.name)
    with Meter(f"train {run.path}", "steps") as meter:
        values = runs.start_run(resolved, spec, data, run, device, step_callback(meter), force)
    return _report(run.path, values, json)


def step_callback(meter: Meter) -> Any:
    """A callback that shows losses in the meter, and messages above it."""

    def on_step(report: Any) -> None:
        if report.message:
            meter.say(report.message)
        elif "loss" in report.values:
            meter.update(report.step, report.num_steps, f"loss {report.values['loss']:.4g}")

    return on_step


def _report(run: Path, values: dict[str, float], json: bool) -> None:
    if json:
        result_json({"run": str(run), "values": values})
    else:
        shown = "  ".join(f"{name} {number(value)}" for name, value in values.items() if name != "learning_rate")
        result(f"{run}  {shown}".rstrip())


def _report_plan(facts: dict[str, Any], run: Path, json: bool) -> None:
    if json:
        result_json({"dry_run": True, "run": str(run), **facts})
        return
    result_facts({"run": str(run), **facts})


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
