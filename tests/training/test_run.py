"""The run directory: what a kill at any moment leaves behind can be started, continued or replaced."""

import json
import logging
from contextlib import suppress
from itertools import count

import pytest

from slotssm.errors import InputError
from slotssm.experiments import runs
from slotssm.experiments.datasets import spec_of
from slotssm.files import write_json
from slotssm.training import run as run_module
from slotssm.training.run import RunDirectory, newest_run, read_lines

FAST = ("train.num_steps=4", "train.checkpoint_every_steps=2", "train.eval_every_steps=0", "train.log_every_steps=1")


class Killed(BaseException):
    """The process ends here, without cleaning up."""


def quiet(report) -> None:
    pass


def start(config, data, run, force=False):
    return runs.start_run(config, spec_of(config.data), data, run, "cpu", quiet, force)


def dying_at(monkeypatch, number):
    """Let the process die at the n-th call that changes the file system of a run directory; gives the counter."""
    calls = count(1)

    def mortal(honest):
        def call(*arguments, **options):
            if next(calls) == number:
                raise Killed
            return honest(*arguments, **options)

        return call

    monkeypatch.setattr(run_module, "write_json", mortal(run_module.write_json))
    monkeypatch.setattr(run_module.shutil, "rmtree", mortal(run_module.shutil.rmtree))
    monkeypatch.setattr(run_module.Path, "unlink", mortal(run_module.Path.unlink))
    return calls


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_start_killed_at_any_moment_can_be_started_again(tiny_run, tmp_path, monkeypatch, number):
    config, data, _ = tiny_run("tiny-oc", *FAST)
    run = RunDirectory(tmp_path / "killed")
    with monkeypatch.context() as patch:
        dying_at(patch, number)
        with suppress(Killed):
            start(config, data, run)
    if not run.record.exists():
        assert run.is_free()
        start(config, data, run)
    runs.resume_run(run, "cpu", quiet, data) if not run.is_complete() else None
    assert run.is_complete()


@pytest.mark.parametrize("number", range(1, 9))
def test_a_replacement_killed_at_any_moment_never_goes_on_with_the_old_run(tiny_run, monkeypatch, number):
    config, data, made = tiny_run("tiny-oc", *FAST)
    run = RunDirectory(made.path.parent / "replaced")
    start(config, data, run)
    other = config.replace(seed=7)
    with monkeypatch.context() as patch:
        dying_at(patch, number)
        with suppress(Killed):
            start(other, data, run, force=True)
    if run.record.exists() and run.config() == config:
        # it died before anything was removed: the old run is whole
        assert run.is_complete()
        return
    if not run.record.exists():
        assert run.is_free()
        start(other, data, run)
    assert run.config() == other
    if not run.is_complete():
        runs.resume_run(run, "cpu", quiet, data)
    assert {line["step"] for line in read_lines(run.metrics)} == {1, 2, 3, 4}


def test_a_temporary_file_of_a_killed_start_does_not_block_the_folder(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".run.host.77.partial.json").write_text("{")
    run.lock.touch()
    assert run.is_free()
    runs.refuse_used(run, force=False)


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoints.zip", ".secret"])
def test_a_folder_with_something_else_is_refused_even_with_force(tmp_path, name):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).write_text("precious")
    for force in (False, True):
        with pytest.raises(InputError, match="exists and is not a run directory; choose another `out`"):
            runs.refuse_used(run, force)


def test_who_comes_second_does_not_erase_what_was_finished_meanwhile(tiny_run, monkeypatch):
    config, data, made = tiny_run("tiny-oc", *FAST)
    run = RunDirectory(made.path.parent / "contested")
    honest = runs.Trainer

    def late(*arguments):
        # another process trains the run between the first check and the lock
        monkeypatch.setattr(runs, "Trainer", honest)
        start(config.replace(seed=3), data, run)
        return honest(*arguments)

    monkeypatch.setattr(runs, "Trainer", late)
    with pytest.raises(InputError, match=r"exists already; `resume` continues it, `force` starts it again"):
        start(config, data, run)
    assert run.config().seed == 3
    assert run.is_complete()


def test_a_damaged_run_is_passed_over_when_the_newest_is_asked_for(tiny_run, tmp_path, caplog):
    _, _, run = tiny_run("tiny-oc", *FAST)
    for name, content in (("torn", "{"), ("list", "[]"), ("empty", "{}"), ("text", '{"created": "today"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert newest_run(tmp_path) == run
    assert len(caplog.records) == 4
    with pytest.raises(InputError, match="no run in"):
        newest_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "line",
    [
        *("nonsense", "[]", "{}", '{"step": "4"}', "[" * 100_000, '{"step": 4}', '{"step": true, "split": "val"}'),
        *(
            '{"step": 4, "split": "val", "mse": "x"}',
            '{"step": 4, "split": "val", "mse": [1]}',
            '{"step": 4, "split": 3}',
        ),
    ],
)
def test_a_damaged_line_of_the_log_is_named(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    first = {"step": 1, "split": "val", "mse": 0.5}
    file.write_text(json.dumps(first) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged at line 2"):
        read_lines(file)
    file.write_text(json.dumps(first) + "\n" + line)
    assert read_lines(file) == [first]


@pytest.mark.parametrize(
    "value",
    [
        {"extended": 5},
        {"stopped_early": 5},
        {"stopped_early": {"step": "6"}},
        {"plugins": [1]},
        {"plugins": [{"registers": [1]}]},
    ],
)
def test_a_record_with_something_of_another_type_is_refused(tiny_run, tmp_path, value):
    _, _, run = tiny_run("tiny-oc")
    copy = RunDirectory(tmp_path / "copy")
    copy.path.mkdir()
    write_json(copy.record, run.read() | value)
    with pytest.raises(InputError, match=rf"run\.json is damaged: {next(iter(value))} has the wrong type"):
        copy.config()


def test_the_record_names_processor_threads_and_instructions(tiny_run):
    _, _, run = tiny_run("tiny-oc")
    record = run.read()
    assert record["threads"] >= 1
    assert record["processor"]["name"]
    assert record["processor"]["instructions"]
