"""`slotssm eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli import options
from slotssm_cli.terminal.console import Meter, note, number, result_json, result_table

COMPARE_OPTIONS = {"compare", "metric", "out", "force", "json"}
"""Options that a comparison takes; the others belong to scoring."""


def evaluate(
    context: typer.Context,
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
    probe: Annotated[str, typer.Option(help="Probes of properties: linear, or mlp.")] = "linear",
    properties: Annotated[
        str | None, typer.Option(help="Properties to probe, comma-separated; by default all in the file.")
    ] = None,
    probe_split: Annotated[
        str | None, typer.Option(help="Fit probes on this split; by default on other videos of the scored one.")
    ] = None,
    conventions: Annotated[
        str | None,
        typer.Option(help="Segmentation under several conventions in one pass: all, or names such as savi,per-frame."),
    ] = None,
    per_episode: Annotated[
        bool, typer.Option("--per-episode", help="Show the value of every episode in --json.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write results with the values of all episodes to this file, for --compare.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two files of --out, episode by episode."),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Score a run, or anybody's predictions, on an episode file; or compare two such scores."""
    from slotssm.evaluation import FileSource, ScoringOptions
    from slotssm.evaluation.pairing import write_scores
    from slotssm.experiments import runs
    from slotssm.files import make_folder, refuse_existing
    from slotssm.training.device import resolve_device
    from slotssm.training.run import RunDirectory, newest_run

    names = [name for group in metric or () for name in options.words(group)]
    if compare is not None:
        _refuse_scoring_options(context)
    if out is not None:
        if out.suffix != ".json":
            raise InputError(f"--out {out} must end in .json, which is what it will hold")
        refuse_existing(out, force)
        make_folder(out.parent)
    if compare is not None:
        _compare(*compare, names, out, json)
        return
    if per_episode and not json:
        raise InputError("--per-episode shows in --json alone; add it (files of --out always have these values)")
    scoring = ScoringOptions(
        per_frame=per_frame,
        include_background=include_background,
        empty=empty,  # type: ignore[arg-type]
        skip_frames=skip_frames,
        clip_len=clip_len,
        matching=matching,  # type: ignore[arg-type]
        average=average,  # type: ignore[arg-type]
        mask_source=mask_source,  # type: ignore[arg-type]
        probe=probe,  # type: ignore[arg-type]
        properties=tuple(options.words(properties or "")),
        probe_split=probe_split,
        conventions=tuple(options.words(conventions or "")),
    )
    with Meter("evaluate", "episodes") as meter:
        if predictions is not None:
            truth = data or (RunDirectory(run).data() if run else None)
            if truth is None:
                raise InputError("--predictions needs the truth: pass --data F, or the run whose data it is")
            source = FileSource(predictions, split)
            report = runs.evaluate_predictions(source, truth, split, names, scoring, meter.update)
            scored = None
        else:
            directory = RunDirectory(run) if run else newest_run()
            where = resolve_device(device)
            report = runs.evaluate_run(directory, data, split, names, scoring, where, meter.update)
            scored = str(directory.path)
    if out is not None:
        write_scores(out, report, scored, None if predictions is None else str(predictions))
        note(f"wrote {out}")
    if json:
        result_json(report.document(scored, per_episode))
    else:
        print_report(report, scored or str(predictions))


def print_report(report: Any, scored: str) -> None:
    """The table of results."""
    note(f"{scored} on {report.data}, split {report.split}: {report.num_episodes} episodes")
    rows = []
    for found in report.results:
        interval = f"{number(found.interval[0])} … {number(found.interval[1])}" if found.interval else ""
        stated = " ".join(f"{name}={value}" for name, value in found.options.items() if value not in (False, 0))
        further = {name: v for name, v in found.details.items() if isinstance(v, float) and v != found.value}
        extra = " ".join(f"{name}={number(v)}" for name, v in further.items())
        if found.details.get("converged") is False:
            extra += " (not converged)"
        skipped = f" ({found.num_skipped} skipped)" if found.num_skipped else ""
        rows.append(
            (
                found.name,
                number(found.value),
                interval,
                f"{found.num_units} {found.unit}s{skipped}",
                " ".join(filter(None, (stated, extra, found.details.get("reason")))),
            )
        )
    result_table("", ("metric", "value", "95 % interval", "units", "convention and baselines"), rows)
    for name, reason in report.left_out.items():
        note(f"left out {name}: {reason}")


def _refuse_scoring_options(context: typer.Context) -> None:
    given = (name for name in context.params if _is_given(context, name))
    other = next((name for name in given if name not in COMPARE_OPTIONS), None)
    if other is not None:
        option = "RUN" if other == "run" else f"--{other.replace('_', '-')}"
        raise InputError(f"--compare reads two files that are scored already; leave out {option}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _compare(first: Path, second: Path, names: list[str], out: Path | None, json: bool) -> None:
    from slotssm.evaluation.pairing import compare
    from slotssm.files import write_json

    found = compare(first, second, names)
    if out is not None:
        write_json(out, found.document())
        note(f"wrote {out}")
    if json:
        result_json(found.document())
    else:
        print_comparison(found)


def print_comparison(found: Any) -> None:
    """The table of paired tests."""
    first, second = found.first, found.second
    note(f"first:  {first.path} ({first.scored})")
    note(f"second: {second.path} ({second.scored})")
    note(f"on {first.data}, split {first.split}: {first.num_episodes} episodes, seed {found.seed}")
    rows = []
    for each in found.results:
        test = each.test
        interval = f"{number(test.interval[0])} … {number(test.interval[1])}" if test.interval else ""
        unpaired = f" ({each.num_unpaired} unpaired)" if each.num_unpaired else ""
        rows.append(
            (
                each.name,
                number(test.difference),
                interval,
                number(test.first),
                number(test.second),
                f"{test.num_higher} / {test.num_lower} of {test.num_episodes}{unpaired}",
                f"{number(test.p_permutation)} ({test.permutations})",
                number(test.p_wilcoxon),
                " ".join(f"{name}={value}" for name, value in each.unusual_options.items()),
            )
        )
    columns = ("second - first", "95 % interval", "first", "second", "higher / lower", "p", "p (Wilcoxon)")
    result_table("", ("metric", *columns, "convention"), rows)
    for name, reason in found.left_out.items():
        note(f"left out {name}: it {reason}")
