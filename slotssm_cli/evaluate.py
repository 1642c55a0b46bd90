"""`slotssm eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, interval, note, number, result_json, result_table

COMPARE_OPTIONS = {"compare", "metric", "out", "force", "json"}
"""Options that can be combined with --compare; the others belong to scoring."""


def evaluate(
    context: typer.Context,
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run directories.", show_default="the newest in runs/"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metrics, comma-separated or repeated.", show_default="all that apply"),
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    checkpoint: Annotated[str, typer.Option(help="Checkpoint to score: last, best, or a step.")] = "last",
    predictions: Annotated[Path | None, typer.Option(help="Score this predictions file instead of a run.")] = None,
    per_frame: Annotated[bool, typer.Option("--per-frame", help="Score frames instead of whole videos.")] = False,
    include_background: Annotated[
        bool, typer.Option("--include-background", help="Count the background as an object.")
    ] = False,
    empty: Annotated[str, typer.Option(help="FG-ARI of units without foreground: skip or one.")] = "skip",
    skip_frames: Annotated[int, typer.Option(help="Leave out this many first frames of each video.")] = 0,
    clip_len: Annotated[int, typer.Option(help="Score clips of this many frames; 0 is off.")] = 0,
    matching: Annotated[
        str, typer.Option(help="Matching of objects to slots in mIoU: hungarian or overlap.")
    ] = "hungarian",
    average: Annotated[str, typer.Option(help="Average mIoU over each unit or each object.")] = "unit",
    absent: Annotated[
        str, typer.Option(help="mIoU of ids below the largest of a unit that are not in it: skip or zero.")
    ] = "skip",
    frame_range: Annotated[
        str | None,
        typer.Option(
            "--frame-range", help="Black and white in predicted frames: -1:1, 0:1, 0:255.", show_default="0:1"
        ),
    ] = None,
    mask_source: Annotated[
        str,
        typer.Option(help="Predicted masks: decoder (alphas), attention, or cross-attention (of the pieces to slots)."),
    ] = "decoder",
    probe: Annotated[str, typer.Option(help="Property probes: linear or mlp.")] = "linear",
    properties: Annotated[
        str | None, typer.Option(help="Properties to probe, comma-separated.", show_default="all in the file")
    ] = None,
    probe_split: Annotated[
        str | None, typer.Option(help="Split to fit probes on.", show_default="cross-validation in --split")
    ] = None,
    conventions: Annotated[
        str | None,
        typer.Option(help="Scoring conventions to compute in one pass: all, or names such as savi,per-frame."),
    ] = None,
    per_episode: Annotated[
        bool, typer.Option("--per-episode", help="Include the value of every episode in --json.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write a score file with the values of all episodes, for --compare.")
    ] = None,
    no_save: Annotated[
        bool, typer.Option("--no-save", help="Print the scores only, without keeping them in RUN/eval.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two score files, episode by episode."),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Score runs or a predictions file on an episode file, or compare two score files.

    The scores of a run are kept in its eval/SPLIT.json, which --compare reads.
    """
    from slotssm.evaluation import ScoringOptions
    from slotssm.evaluation.pairing import write_scores
    from slotssm.files import make_folder, refuse_existing

    names = [name for group in metric or () for name in options.words(group)]
    if compare is not None:
        _refuse_scoring_options(context)
    if out is not None:
        if out.suffix != ".json":
            raise InputError(f"--out {out} must end in .json, since it is a JSON file")
        if len(run or ()) > 1:
            raise InputError("--out writes the scores of one run; leave it out, each run keeps its scores in RUN/eval")
        refuse_existing(out, force)
        make_folder(out.parent)
    if compare is not None:
        _compare(*compare, names, out, json)
        return
    if per_episode and not json:
        raise InputError("--per-episode needs --json (files written by --out always contain these values)")
    scoring = ScoringOptions(
        per_frame=per_frame,
        include_background=include_background,
        empty=empty,  # type: ignore[arg-type]
        skip_frames=skip_frames,
        clip_len=clip_len,
        matching=matching,  # type: ignore[arg-type]
        average=average,  # type: ignore[arg-type]
        absent=absent,  # type: ignore[arg-type]
        mask_source=mask_source,  # type: ignore[arg-type]
        probe=probe,  # type: ignore[arg-type]
        properties=tuple(options.words(properties or "")),
        probe_split=probe_split,
        conventions=tuple(options.words(conventions or "")),
    )
    if predictions is not None:
        if _is_given(context, "checkpoint"):
            raise InputError("--checkpoint chooses the weights of a run; leave it out with --predictions")
        reports: list[tuple[str | None, Any]] = [
            (None, _score_predictions(predictions, run or [], data, split, names, scoring, _range(frame_range)))
        ]
    else:
        if frame_range is not None:
            raise InputError("--frame-range says how --predictions stores frames; leave it out when a run is scored")
        reports = _score_runs(run or [], data, split, names, scoring, device, checkpoint, not no_save)
    if out is not None:
        scored, report = reports[0]
        write_scores(out, report, scored, None if predictions is None else str(predictions))
        note(f"wrote {out}")
    if json:
        documents = [report.document(scored, per_episode) for scored, report in reports]
        result_json(documents[0] if len(documents) == 1 else {"runs": documents})
    elif len(reports) == 1:
        scored, report = reports[0]
        print_report(report, scored or str(predictions))
    else:
        _print_reports(reports)


def _score_predictions(
    predictions: Path,
    run: list[Path],
    data: Path | None,
    split: str,
    names: list[str],
    scoring: Any,
    frame_range: tuple[float, float] | None,
) -> Any:
    from slotssm.evaluation import FileSource
    from slotssm.experiments import runs
    from slotssm.training.run import RunDirectory

    if len(run) > 1:
        raise InputError("--predictions is scored on the data of one run; name one RUN, or pass --data F")
    truth = data or (runs.data_of(RunDirectory(run[0])) if run else None)
    if truth is None:
        raise InputError("--predictions needs the truth: pass --data F, or a run whose data it was made for")
    with Meter("evaluate", "episodes") as meter:
        source = FileSource(predictions, split, frame_range)
        return runs.evaluate_predictions(source, truth, split, names, scoring, meter.update)


def _range(text: str | None) -> tuple[float, float] | None:
    """`-1:1` as the values of black and white."""
    if text is None:
        return None
    try:
        black, white = (float(word) for word in text.split(":"))
    except ValueError:
        black = white = 0.0
    if not -1e9 < black < white < 1e9:
        raise InputError(f"--frame-range {text}: expected the values of black and white, such as -1:1 or 0:255")
    return black, white


def _score_runs(
    run: list[Path],
    data: Path | None,
    split: str,
    names: list[str],
    scoring: Any,
    device: str,
    checkpoint: str,
    save: bool,
) -> list[tuple[str | None, Any]]:
    """Score runs one after the other; each keeps its scores as soon as it is scored."""
    from slotssm.experiments import runs
    from slotssm.training.checkpoint import chosen_checkpoint
    from slotssm.training.device import resolve_device
    from slotssm.training.run import RunDirectory, newest_run

    directories = [RunDirectory(path) for path in run] or [newest_run()]
    where = resolve_device(device)
    for directory in directories:  # all are checked before the first is scored
        directory.read()
        chosen_checkpoint(directory.checkpoints, checkpoint)
    reports: list[tuple[str | None, Any]] = []
    for directory in directories:
        with Meter(f"evaluate {directory.path}", "episodes") as meter:
            scored = runs.score_run(directory, data, split, names, scoring, where, meter.update, checkpoint)
        file = scored.save() if save else None
        if file is not None:
            note(f"scores kept in {file}")
        reports.append((str(directory.path), scored.report))
    return reports


COLUMNS = ("metric", "value", "95 % interval", "units", "convention and baselines")


def print_report(report: Any, scored: str) -> None:
    """Print the table of results."""
    note(f"{scored} on {report.data}, split {report.split}: {report.num_episodes} episodes")
    result_table("", COLUMNS, [_row(found) for found in report.results])
    for found in report.results:
        for title, groups in found.details.items():
            if isinstance(groups, dict) and all(isinstance(group, dict) for group in groups.values()):
                _print_groups(f"{found.name} {title.replace('_', ' ')}", groups)
    for name, reason in report.left_out.items():
        note(f"left out {name}: {reason}")


def _print_groups(title: str, groups: dict[str, dict[str, Any]]) -> None:
    """Print what a metric says of groups of episodes."""
    names = list(next(iter(groups.values()), {}))
    rows = [(group, *(number(found[name]) for name in names)) for group, found in groups.items()]
    result_table(title, ("", *(name.removeprefix("num_").replace("_", " ") for name in names)), rows)


def _print_reports(reports: list[tuple[str | None, Any]]) -> None:
    """Print the results of several runs in one table."""
    rows = []
    for scored, report in reports:
        note(f"{scored} on {report.data}, split {report.split}: {report.num_episodes} episodes")
        rows += [(str(scored), *_row(found)) for found in report.results]
        for name, reason in report.left_out.items():
            note(f"left out {name}: {reason}")
    result_table("", ("run", *COLUMNS), rows)


def _row(found: Any) -> tuple[str, ...]:
    stated = " ".join(f"{name}={value}" for name, value in found.options.items() if value not in (False, 0))
    further = {name: v for name, v in found.details.items() if isinstance(v, float) and v != found.value}
    extra = " ".join(f"{name}={number(v)}" for name, v in further.items())
    if found.details.get("converged") is False:
        extra += " (not converged)"
    skipped = f" ({found.num_skipped} skipped)" if found.num_skipped else ""
    return (
        found.name,
        number(found.value),
        interval(found.interval),
        f"{found.num_units} {found.unit}s{skipped}",
        " ".join(filter(None, (stated, extra, found.details.get("reason")))),
    )


def _refuse_scoring_options(context: typer.Context) -> None:
    given = (name for name in context.params if _is_given(context, name))
    other = next((name for name in given if name not in COMPARE_OPTIONS), None)
    if other is not None:
        option = "RUN" if other == "run" else f"--{other.replace('_', '-')}"
        raise InputError(f"--compare reads two existing score files; leave out {option}")


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
    """Print the table of paired tests."""
    first, second = found.first, found.second
    note(f"first:  {first.path} ({first.scored})")
    note(f"second: {second.path} ({second.scored})")
    note(f"on {first.data}, split {first.split}: {first.num_episodes} episodes, seed {found.seed}")
    rows = []
    for each in found.results:
        test = each.test
        unpaired = f" ({each.num_unpaired} unpaired)" if each.num_unpaired else ""
        rows.append(
            (
                each.name,
                number(test.difference),
                interval(test.interval),
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
