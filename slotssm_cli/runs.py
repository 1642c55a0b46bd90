"""`slotssm runs` and `slotssm table`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, interval, note, number, result, result_json, result_table

MOST_GROUPS = 3
"""With more groups than this, only the comparisons with the first group are printed."""

MOST_SCORES = 3
"""Scores of a split that the list of runs prints."""


def runs(
    folder: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Folders of runs, reproductions or sweeps.", show_default="runs"),
    ] = None,
    json: options.Json = False,
) -> None:
    """List runs with model, data, steps, scores and state."""
    from slotssm.experiments.overview.listing import list_runs

    found = list_runs(folder or [])
    if json:
        result_json({"runs": [run.document() for run in found]})
        return
    rows = []
    for run in found:
        state = run.state
        steps = f"{state.step} / {state.num_steps}" if state.num_steps else ""
        # what the validation shows of the task, and the same of the test
        names = list(state.validation or run.test)[:MOST_SCORES]
        scores = [
            f"{split} {_values({name: values[name] for name in names if name in values})}"
            for split, values in (("val", state.validation), ("test", run.test))
            if values
        ]
        shown = state.name + (f": {state.reason}" if state.reason else "")
        data = Path(run.data).stem if run.data else ""
        rows.append((str(run.path), shown, run.model or "", data, steps, "  ".join(scores)))
    if not rows:
        note(f"no runs in {' or '.join(map(str, folder or [])) or 'runs'}; slotssm train makes one")
        return
    result_table("", ("run", "state", "model", "data", "steps", "scores"), rows)


def table(
    run: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or folders of them.")],
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", help="Settings to group by, such as model.kind; repeatable.", show_default="all but the seed"
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metrics, comma-separated or repeated.", show_default="all that are scored"),
    ] = None,
    split: options.Split = "test",
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="First score the runs that lack scores of this split, or of a metric.")
    ] = False,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write the numbers as CSV: a line for each group and metric.")
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Average the scores of runs over seeds, and compare the groups episode by episode."""
    from slotssm.evaluation import ScoringOptions
    from slotssm.experiments.overview.groups import metric_of, table_of
    from slotssm.experiments.overview.listing import find_runs
    from slotssm.experiments.runs import evaluate_run
    from slotssm.files import refuse_existing, write_text
    from slotssm.training.device import resolve_device

    if csv == "-" and json:
        raise InputError("--csv - and --json both write to stdout; leave one out")
    if csv not in (None, "-"):
        refuse_existing(Path(str(csv)), force)
    names = [name for group in metric or () for name in options.words(group)]
    where = resolve_device(device)
    metrics = list(dict.fromkeys(metric_of(name) for name in names))

    def score(directory: Any) -> None:
        with Meter(f"evaluate {directory.path}", "episodes") as meter:
            evaluate_run(directory, None, split, metrics, ScoringOptions(), where, meter.update)

    settings = [setting for group in by or () for setting in options.words(group)]
    found = table_of(find_runs(run), split, settings, names, score if evaluate else None)
    for path, reason in found.skipped.items():
        note(f"left out {path}: {reason}")
    if csv not in (None, "-"):
        write_text(Path(str(csv)), found.csv())
        note(f"wrote {csv}")
    if json:
        result_json(found.document())
    elif csv == "-":
        result(found.csv().rstrip())
    else:
        _print_table(found)
    for text in found.notes:
        note(text)


def _print_table(found: Any) -> None:
    rows = []
    for name in found.groups[0].metrics:
        for group in found.groups:
            each = group.metrics[name]
            spread = f"± {number(each.std)}" if each.std is not None else interval(each.interval)
            rows.append((name, group.label, number(each.mean), spread, str(len(each.values))))
    result_table("", ("metric", "group", "mean", "std, or 95 % interval", "n"), rows)
    first = found.groups[0].label
    pairs = [pair for pair in found.pairs if len(found.groups) <= MOST_GROUPS or pair.first == first]
    if not pairs:
        return
    tests = []
    for pair in pairs:
        test = pair.comparison.test
        higher = f"{test.num_higher} / {test.num_lower} of {test.num_episodes}"
        compared = f"{pair.second} - {pair.first}"
        tests.append(
            (
                pair.comparison.name,
                compared,
                number(test.difference),
                interval(test.interval),
                higher,
                number(test.p_permutation),
            )
        )
    result("")
    result_table("", ("metric", "compared", "difference", "95 % interval", "higher / lower", "p"), tests)


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())
