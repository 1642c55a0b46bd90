"""What runs there are, and how far each of them is; a damaged run is listed with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slotssm.errors import InputError
from slotssm.evaluation.pairing import read_scores
from slotssm.evaluation.validation import MEAN_IMAGE
from slotssm.files import is_held
from slotssm.training.checkpoint import BEST, MODEL, latest
from slotssm.training.run import RUNS, RunDirectory, read_lines


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        name: `complete`, `running`, `stopped` or `damaged`.
        reason: what is damaged; empty otherwise.
        is_held: whether a process holds the lock of the run: it trains it, or is about to.
        step: steps taken: those that are logged while it is running, otherwise those that are saved.
        num_steps: steps in total; None if the record is damaged.
        latest: the last line of metrics.jsonl; None if there is none.
        steps_per_s: speed of the last logged steps; None if it is unknown.
        validation: scores of the last validation, without baselines.
    """

    name: str
    reason: str = ""
    is_held: bool = False
    step: int = 0
    num_steps: int | None = None
    latest: dict[str, Any] | None = None
    steps_per_s: float | None = None
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ListedRun:
    """One run of a list.

    Attributes:
        path: the run directory.
        experiment: name of the experiment; None if the record is damaged, as for the next four.
        task: kind of the task.
        model: kind of the model.
        data: episode file.
        seed: seed of the run.
        created: when it was started, in seconds since 1970.
        state: how far it is.
        has_best: whether it keeps its best checkpoint.
        test: scores on the test split that the run keeps, by name; of the last checkpoint only.
    """

    path: Path
    experiment: str | None
    task: str | None
    model: str | None
    data: str | None
    seed: int | None
    created: float | None
    state: RunState
    has_best: bool
    test: dict[str, float]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        state = found.pop("state")
        return {
            **found,
            "path": str(self.path),
            "state": state["name"],
            "reason": state["reason"],
            "step": state["step"],
            "num_steps": state["num_steps"],
            "validation": state["validation"],
        }


def find_runs(folders: Sequence[Path] = ()) -> list[RunDirectory]:
    """The runs in some folders, or the folders themselves where they are runs; by default those in runs/.

    Runs are looked for in the folder and in its folder `runs`, as reproductions and sweeps have it. A run that is found
    several times, as by a symbolic link, is listed once.

    Raises:
        InputError: a folder does not exist.
    """
    found: dict[Path, RunDirectory] = {}
    for folder in folders or ([RUNS] if RUNS.exists() else []):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; name a folder of runs, or a run directory")
        places = [folder] if (folder / "run.json").exists() else [*folder.glob("*"), *folder.glob("runs/*")]
        for place in sorted(places):
            if (place / "run.json").exists():
                found.setdefault(place.resolve(), RunDirectory(place))
    return list(found.values())


def list_runs(folders: Sequence[Path] = ()) -> list[ListedRun]:
    """The runs that `find_runs` finds, each with its state, from the oldest to the newest."""
    listed = [_listed(run) for run in find_runs(folders)]
    return sorted(listed, key=lambda each: each.created or 0.0)


def _listed(run: RunDirectory) -> ListedRun:
    try:
        record = run.read()
    except InputError:
        record = {}
    config = record.get("config") or {}
    return ListedRun(
        run.path,
        config.get("name"),
        _kind(config, "task"),
        _kind(config, "model"),
        record.get("data"),
        config.get("seed"),
        record.get("created"),
        state_of(run),
        (run.checkpoints / BEST / MODEL).exists(),
        _kept_scores(run, "test"),
    )


def _kind(config: Mapping[str, Any], name: str) -> str | None:
    part = config.get(name)
    return part.get("kind") if isinstance(part, dict) else None


def state_of(run: RunDirectory) -> RunState:
    """How far a run is; what cannot be read is a state too, and no error."""
    held = is_held(run.lock)
    try:
        num_steps = run.num_steps()
        lines, timing = read_lines(run.metrics), read_lines(run.timing)
        newest = latest(run.checkpoints)
        if newest is not None and not (newest / MODEL).exists():
            raise InputError(f"{newest} has no {MODEL}")
    except InputError as error:
        return RunState("damaged", str(error), held)
    saved = int(newest.name.removeprefix("step-")) if newest is not None else 0
    logged = int(lines[-1]["step"]) if lines else 0
    name = "complete" if saved == num_steps else "running" if held else "stopped"
    validation: dict[str, Any] = next((line for line in reversed(lines) if line.get("split") == "val"), {})
    speed = timing[-1].get("steps_per_s") if timing else None
    return RunState(
        name,
        "",
        held,
        max(saved, logged) if held else saved,
        num_steps,
        lines[-1] if lines else None,
        speed if isinstance(speed, int | float) else None,
        {key: value for key, value in validation.items() if _is_score(key)},
    )


def _is_score(name: str) -> bool:
    """Whether a value of a validation is a score: neither the step nor a baseline."""
    return name not in ("step", "split", MEAN_IMAGE) and not name.endswith(("-repeat-last-frame", "-mean-depth"))


def _kept_scores(run: RunDirectory, split: str) -> dict[str, float]:
    """Scores of the last checkpoint that a run keeps; empty if there are none, or if they are of another checkpoint."""
    newest = latest(run.checkpoints)
    try:
        scores = read_scores(run.evaluation(split))
    except InputError:
        return {}
    if newest is None or scores.checkpoint != newest.name:
        return {}
    return {name: value for name, value in scores.values.items() if value is not None}
