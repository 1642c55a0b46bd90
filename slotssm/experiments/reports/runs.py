"""The page of one run or of several: curves, scores, episodes, configurations, provenance, commands."""

import datetime
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotssm.data.contents import known_content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import as_toml
from slotssm.evaluation.pairing import unusual_options
from slotssm.experiments.reports.command import Command, Speller
from slotssm.experiments.reports.curves import step_charts, training_charts
from slotssm.experiments.reports.episodes import (
    chosen_videos,
    describe_choice,
    rank,
    split_to_show,
)
from slotssm.experiments.reports.fitting import describe_plan, fit
from slotssm.experiments.reports.recorded import RecordedRun, SeedGroup, group_by_seed, read_run
from slotssm.experiments.runs import check_fits, load_run
from slotssm.report import Block, Cell, Code, Facts, Note, Page, Section, Table, Videos, number
from slotssm.training.run import RunDirectory


@dataclass(frozen=True)
class RunsRequest:
    """What to show of runs.

    Attributes:
        data: episode file to show instead of the runs' own; None takes theirs.
        split: split to show; None takes the first of test, val and train that there is.
        num_episodes: episodes to show of each run.
        metric: score that chooses the episodes; None takes FG-ARI or the error of the frames.
        device: device to predict on.
    """

    data: Path | None = None
    split: str | None = None
    num_episodes: int = 6
    metric: str | None = None
    device: str = "cpu"


Progress = Callable[[int, int], None]


def runs_page(runs: Sequence[RunDirectory], spell: Speller) -> tuple[Page, list[RecordedRun]]:
    """The page without episodes, and the runs as recorded.

    Args:
        runs: run directories, at least one.
        spell: writes commands.
    """
    recorded = [read_run(run) for run in runs]
    groups = group_by_seed(recorded)
    several = len(recorded) > 1
    sections = [Section("Curves", _curves(recorded, groups)), Section("Scores", _scores(recorded, groups))]
    sections += [
        Section("Configuration", _configuration(recorded)),
        Section("Provenance", [_provenance(recorded)]),
        Section("Commands", _commands(recorded, spell)),
    ]
    if several:
        sections.insert(0, Section("Runs", [_overview(recorded, groups)]))
    title = f"{len(recorded)} runs" if several else recorded[0].name
    return Page(title, "runs" if several else "training run", _summary(recorded), sections), recorded


def _summary(runs: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    def shared(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    first = runs[0]
    facts = [
        ("model", shared([run.config.model.kind for run in runs])),
        ("task", shared([run.config.task.kind for run in runs])),
        ("data", shared([Path(run.record["data"]).name for run in runs])),
        ("seed" if len(runs) == 1 else "seeds", shared([str(run.config.seed) for run in runs])),
    ]
    if len(runs) == 1:
        facts += [("steps", _steps(first)), ("state", first.state), ("training time", duration(first.training_s))]
        facts += [(name, text) for name, text in _headline(first)]
    return facts


def _headline(run: RecordedRun) -> list[tuple[str, str]]:
    """The first scores on the test split, or on whichever was scored."""
    scores = next((each for each in run.scores if each.file == "test"), run.scores[0] if run.scores else None)
    shown = scores.results[:1] if scores else []
    shown += [
        each for each in (scores.results if scores else []) if each["metric"] in ("miou", "mse") and each not in shown
    ]
    return [(f"{each['name']}, {scores.file}", number(each["value"])) for each in shown] if scores else []


def _steps(run: RecordedRun) -> str:
    total = run.num_steps
    return f"{run.step:,}" if run.step == total else f"{run.step:,} of {total:,}"


def duration(seconds: float | None) -> str:
    """A duration in words."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _colors(groups: Sequence[SeedGroup]) -> dict[Path, tuple[int, int, int]]:
    return {run.run.path: group.color for group in groups for run in group.runs}


def _overview(runs: Sequence[RecordedRun], groups: Sequence[SeedGroup]) -> Block:
    colors = _colors(groups)
    rows = [
        [
            Cell(run.name, color=colors[run.run.path], hint=str(run.run.path)),
            Cell(run.config.model.kind),
            Cell(run.config.task.kind),
            Cell(Path(run.record["data"]).name),
            Cell(str(run.config.seed), run.config.seed),
            Cell(_steps(run), run.step),
            Cell(run.state),
            Cell(duration(run.training_s), run.training_s),
        ]
        for run in runs
    ]
    return Table(("run", "model", "task", "data", "seed", "steps", "state", "training time"), rows)


def _curves(runs: Sequence[RecordedRun], groups: Sequence[SeedGroup]) -> list[Block]:
    found = [training_charts(groups), step_charts([(run, _colors(groups)[run.run.path]) for run in runs])]
    blocks: list[Block] = [each for each in found if each is not None]
    return blocks or [Note("Nothing is logged yet.", important=True)]


# --- scores -----------------------------------------------------------------------------------------------


def _scores(runs: Sequence[RecordedRun], groups: Sequence[SeedGroup]) -> list[Block]:
    if not any(run.scores for run in runs):
        return [Note("No scores are stored with the run yet; the commands below compute them.", important=True)]
    blocks: list[Block] = []
    for run in runs:
        for scores in run.scores:
            if scores.document.get("checkpoint") != run.checkpoint:
                text = f"{run.name}: the scores {scores.file} are of {scores.document.get('checkpoint')}"
                blocks.append(Note(f"{text}, not of the newest checkpoint, {run.checkpoint}.", important=True))
    several = len(runs) > 1
    if several:
        blocks += [_side_by_side(runs, groups)]
        if any(len(group.runs) > 1 for group in groups):
            blocks += [_over_seeds(groups)]
    rows = [_result_row(run, scores.file, scores.document, result, several) for run, scores, result in _results(runs)]
    columns = ("scored", "metric", "value", "95 % interval", "averaged over", "convention and baselines")
    title = "Every stored score" if several else ""
    blocks.append(Table((("run", *columns) if several else columns), rows, title, folded=several))
    blocks.append(Note("Intervals: 95 % bootstrap over episodes. Numbers are rounded; hovering shows all digits."))
    return blocks


def _results(runs: Sequence[RecordedRun]) -> list[tuple[RecordedRun, Any, dict[str, Any]]]:
    return [(run, scores, result) for run in runs for scores in run.scores for result in scores.results]


def _result_row(
    run: RecordedRun, scored: str, document: Mapping[str, Any], result: Mapping[str, Any], several: bool
) -> list[Cell]:
    interval = result.get("interval")
    shown = Cell("–")
    if isinstance(interval, list) and len(interval) == 2:
        shown = Cell(f"{number(interval[0])} to {number(interval[1])}", hint=f"{interval[0]} to {interval[1]}")
    skipped = f" ({result['num_skipped']} skipped)" if result.get("num_skipped") else ""
    averaged = f"{result.get('num_units', '–')} {result.get('unit', 'unit')}s{skipped}"
    hint = f"{document.get('data')}, {document.get('num_episodes')} episodes, {document.get('checkpoint')}"
    cells = [
        Cell(scored, hint=hint),
        Cell(result["name"]),
        Cell.of(result["value"]),
        shown,
        Cell(averaged),
        Cell(_remarks(result)),
    ]
    return [Cell(run.name), *cells] if several else cells


def _remarks(result: Mapping[str, Any]) -> str:
    """Options that differ from plain scoring, and further values such as baselines."""
    words = [f"{name} {value}" for name, value in unusual_options(result["options"]).items()]
    further = {name: v for name, v in result.items() if isinstance(v, float) and name != "value"}
    words += [f"{name.replace('_', ' ')} {number(value)}" for name, value in further.items()]
    return "; ".join([*words, *([str(result["reason"])] if result.get("reason") else [])])


def _values(run: RecordedRun) -> dict[tuple[str, str], float]:
    """Stored values by what was scored and the name of the result."""
    return {
        (scores.file, result["name"]): result["value"]
        for scores in run.scores
        for result in scores.results
        if result["value"] is not None
    }


def _side_by_side(runs: Sequence[RecordedRun], groups: Sequence[SeedGroup]) -> Table:
    values = {run.run.path: _values(run) for run in runs}
    names = dict.fromkeys(name for found in values.values() for name in found)
    colors = _colors(groups)
    rows = [
        [
            Cell(run.name, color=colors[run.run.path], hint=str(run.run.path)),
            *(Cell.of(values[run.run.path].get(name)) for name in names),
        ]
        for run in runs
    ]
    return Table(("run", *(_score_title(*name) for name in names)), rows, "Scores of each run")


def _score_title(scored: str, name: str) -> str:
    return name if scored == "test" else f"{name} ({scored})"


def _over_seeds(groups: Sequence[SeedGroup]) -> Table:
    rows = []
    for group in groups:
        values = [_values(run) for run in group.runs]
        for name in dict.fromkeys(name for found in values for name in found):
            known = [found[name] for found in values if name in found]
            spread = statistics.stdev(known) if len(known) > 1 else None
            mean, std = Cell.of(statistics.fmean(known)), Cell.of(spread)
            rows.append(
                [Cell(group.label, color=group.color), Cell(_score_title(*name)), mean, std, Cell.of(len(known))]
            )
    return Table(("runs", "metric", "mean", "standard deviation", "seeds"), rows, "Mean over seeds (ddof = 1)")


# --- episodes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownEpisodes:
    """Episodes of one run on the page.

    Attributes:
        section: the part of the page.
        document: what is shown, as JSON.
        num_bytes: size of the videos on the page.
    """

    section: Section
    document: dict[str, Any]
    num_bytes: int = 0


def episodes_of(recorded: RecordedRun, request: RunsRequest, budget_bytes: int, on_progress: Progress) -> ShownEpisodes:
    """The worst and the best episodes of a run, or a note that says why there are none.

    Raises:
        InputError: the data, the split or the score that the request names does not fit the run.
    """
    title = f"Episodes of {recorded.name}"
    path = request.data or Path(recorded.record["data"])
    reason = ""
    if recorded.checkpoint is None:
        reason = "There is no checkpoint yet, so nothing can be predicted."
    elif request.data is None and not path.exists():
        reason = f"The data {path} do not exist there any more; give their new path as `data`."
    if reason:
        document = {"run": str(recorded.run.path), "episodes": [], "num_left_out": 0, "notes": [reason]}
        return ShownEpisodes(Section(title, [Note(reason, important=True)]), document)
    task, config, folder = load_run(recorded.run, request.device)
    with EpisodeFile(path) as truth:
        split = split_to_show(truth, request.split)
        check_fits(config, recorded.run.description().spec, truth)
        ranking = rank(task, truth, split, request.num_episodes, request.metric, on_progress)
        make, count = chosen_videos(task, truth, split, ranking), len(ranking.chosen)
        fitted = fit(count, make, budget_bytes)
        shape = truth.dataset(split, "frames").shape
        notes = describe_plan(fitted, count, shape[1], (shape[2], shape[3]))
        if known_content_hash(path) != recorded.record["data_sha256"]:
            notes.append(f"{path} is not the data set that the run was trained on.")
        choice = describe_choice(ranking, path.name, split, truth.num_episodes(split), folder.name)
    shown = [ranking.chosen[place][0] for place in fitted.places]
    blocks: list[Block] = [
        Note(choice),
        *(Note(text, important=True) for text in notes),
        Note(how_to("a slot", "slots")),
        Videos(fitted.videos),
    ]
    document = {
        "run": str(recorded.run.path),
        "data": str(path),
        "split": split,
        "metric": ranking.metric,
        "num_scored": ranking.num_scored,
        "episodes": [
            {"episode": index, "scores": {name: values.get(index) for name, values in ranking.scores.items()}}
            for index in shown
        ],
        "num_left_out": count - len(shown),
        "notes": notes,
    }
    return ShownEpisodes(Section(title, blocks), document, fitted.num_bytes)


def how_to(region: str, plural: str) -> str:
    """How the videos of a page are used, in which slots or objects can be lit."""
    return (
        f"Arrow keys change the frame of the video in focus, space plays it. Hovering or focusing {region} lights its "
        f"pixels; a click keeps them lit over time. The bar below the {plural} shows their shares of the pixels."
    )


# --- configuration, provenance, commands ------------------------------------------------------------------


def _configuration(runs: Sequence[RecordedRun]) -> list[Block]:
    several = len(runs) > 1
    blocks: list[Block] = []
    if several:
        blocks.append(_differences(runs))
    blocks += [Code(as_toml(run.config) + "\n", run.name, _file_name(run), folded=several) for run in runs]
    return blocks


def _file_name(run: RecordedRun) -> str:
    return f"{run.config.name}-seed{run.config.seed}.toml"


def _differences(runs: Sequence[RecordedRun]) -> Block:
    """Keys in which the configurations differ."""
    lines = [dict(line.split(" = ", 1) for line in as_toml(run.config).splitlines()) for run in runs]
    keys = dict.fromkeys(key for found in lines for key in found)
    different = [key for key in keys if len({found.get(key) for found in lines}) > 1]
    if not different:
        return Note("The configurations are the same.")
    rows = [
        [Cell(run.name), *(Cell(found.get(key, "–")) for key in different)]
        for run, found in zip(runs, lines, strict=True)
    ]
    return Table(("run", *different), rows, "What differs")


def _provenance(runs: Sequence[RecordedRun]) -> Block:
    found = [_origin(run) for run in runs]
    if len(runs) == 1:
        return Facts(list(found[0].items()))
    columns = list(dict.fromkeys(name for each in found for name in each))
    rows = [
        [Cell(run.name), *(Cell(each.get(name, "–")) for name in columns)]
        for run, each in zip(runs, found, strict=True)
    ]
    return Table(("run", *columns), rows)


def _moment(seconds: Any) -> str:
    """A time since the epoch as a date; a dash if a damaged record holds none."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, TypeError, OSError):
        return "–"


def _origin(run: RecordedRun) -> dict[str, str]:
    record = run.record
    processor, versions = record.get("processor"), record.get("versions")
    facts = {
        "started": _moment(record["created"]),
        "device": str(record.get("device", "–")),
    }
    if isinstance(processor, dict):
        facts["processor"] = ", ".join(
            f"{name} {value}" if name != "name" else str(value) for name, value in processor.items()
        )
    facts["threads"] = str(record.get("threads", "–"))
    if isinstance(versions, dict):
        facts["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    facts["git commit"] = str(record.get("git_commit") or "–")
    if record.get("plugins"):
        facts["plugins"] = str(record["plugins"])
    return {
        **facts,
        "checkpoint": run.checkpoint or "–",
        "data": record["data"],
        "data sha256": record["data_sha256"],
        "folder": str(run.run.path),
    }


def _commands(runs: Sequence[RecordedRun], spell: Speller) -> list[Block]:
    blocks: list[Block] = []
    for run in runs:
        folder = str(run.run.path)
        wanted = [
            Command(
                "train", (), {"config": _file_name(run), "out": f"{folder}-again"}, "the configuration above, saved"
            ),
            *(
                Command("eval", (folder,), {"split": str(scores.document.get("split", "test"))})
                for scores in run.scores
                if scores.file == scores.document.get("split")
            ),
            Command("visualize", (folder,)),
        ]
        lines = [spell(command) for command in wanted]
        argv = run.record.get("argv")
        if isinstance(argv, list) and len(argv) > 1 and argv[1] in ("train", "demo", "sweep", "reproduce"):
            lines.insert(0, f"{shlex.join(['slotssm', *map(str, argv[1:])])}  # how it was started")
        blocks.append(Code("\n".join(lines) + "\n", run.name if len(runs) > 1 else ""))
    text = "A run repeats bit for bit on one machine with one number of threads; numbers differ between processors."
    return [*blocks, Note(text)]
