"""`slotssm eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli import options
from slotssm_cli.console import Meter, note, number, result_json, result_table


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Run directory; by default the newest in runs/.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Comma-separated or repeated; by default all that apply.")
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    predictions: Annotated[Path | None, typer.Option(help="Score this file instead of a run.")] = None,
    per_frame: Annotated[bool, typer.Option("--per-frame", help="Score frames instead of videos.")] = False,
    include_background: Annotated[
        bool, typer.Option("--include-background", help="Count the background as an object.")
    ] = False,
    empty: Annotated[str, typer.Option(help="Units without foreground in FG-ARI: skip, or score one.")] = "skip",
    skip_frames: Annotated[int, typer.Option(help="Leave out the first frames of each video.")] = 0,
    clip_len: Annotated[int, typer.Option(help="Score clips of so many frames; 0 is off.")] = 0,
    matching: Annotated[str, typer.Option(help="Objects to slots in mIoU: hungarian, or overlap.")] = "hungarian",
    average: Annotated[str, typer.Option(help="mIoU over units, or over every object.")] = "unit",
    mask_source: Annotated[str, typer.Option(help="Masks from the decoder's alphas, or the attention.")] = "decoder",
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score a run, or anybody's predictions, on an episode file."""
    from slotssm.evaluation import FileSource, ScoringOptions
    from slotssm.experiments import session
    from slotssm.training.run import RunDirectory, newest_run
    from slotssm.training.trainer import resolve_device

    names = [name for group in metric or () for name in options.words(group)]
    scoring = ScoringOptions(
        per_frame=per_frame,
        include_background=include_background,
        empty=empty,  # type: ignore[arg-type]
        skip_frames=skip_frames,
        clip_len=clip_len,
        matching=matching,  # type: ignore[arg-type]
        average=average,  # type: ignore[arg-type]
        mask_source=mask_source,  # type: ignore[arg-type]
    )
    with Meter("evaluate", "episodes") as meter:
        if predictions is not None:
            truth = data or (RunDirectory(run).data() if run else None)
            if truth is None:
                raise InputError("--predictions needs the truth: pass --data F, or the run whose data it is")
            source = FileSource(predictions, split)
            report = session.evaluate_predictions(source, truth, split, names, scoring, meter.update)
            scored = None
        else:
            directory = RunDirectory(run) if run else newest_run()
            where = resolve_device(device)
            report = session.evaluate_run(directory, data, split, names, scoring, where, meter.update)
            scored = str(directory.path)
    if json:
        result_json(report.document(scored))
    else:
        print_report(report, scored or str(predictions))


def print_report(report: Any, scored: str) -> None:
    """The table of results."""
    note(f"{scored} on {report.data}, split {report.split}: {report.num_episodes} episodes")
    rows = []
    for found in report.results:
        interval = f"{number(found.interval[0])} … {number(found.interval[1])}" if found.interval else ""
        stated = " ".join(f"{name}={value}" for name, value in found.options.items() if value not in (False, 0))
        extra = " ".join(f"{name}={number(v)}" for name, v in found.details.items() if isinstance(v, float))
        skipped = f" ({found.num_skipped} skipped)" if found.num_skipped else ""
        rows.append(
            (
                found.metric,
                number(found.value),
                interval,
                f"{found.num_units} {found.unit}s{skipped}",
                " ".join(filter(None, (stated, extra))),
            )
        )
    result_table("", ("metric", "value", "95 % interval", "units", "convention and baselines"), rows)
