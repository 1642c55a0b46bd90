"""A cell is measured once, recorded whole or not at all, and goes on where it was stopped."""

import json
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest
import torch

from slotssm.config import FileData
from slotssm.documents import override
from slotssm.errors import BusyError, InputError, Interrupted, SlotSSMError
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions import cells as cells_module
from slotssm.experiments.reproductions.cells import (
    ProgressCallbacks,
    TrainingCell,
    picture_path,
    read_record,
    record_path,
    run_cell,
)
from slotssm.experiments.reproductions.comparison import Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment
from slotssm.experiments.reproductions.reproduce import reproduce
from slotssm.experiments.runs import load_run
from slotssm.files import exclusive
from slotssm.plotting import read_picture
from slotssm.training.run import RunDirectory, read_lines

NOBODY = ProgressCallbacks()
NO_MEMORY = "out of memory (2.5 GiB were free before)"


@dataclass(frozen=True)
class Stub:
    """A cell whose measurement is said beforehand: a record, or an error to raise."""

    outcome: object
    name: str = "stub"
    model: str = "slotssm"
    seed: int = 4
    setting: dict = field(default_factory=lambda: {"length": 20})
    config: dict = field(default_factory=lambda: {"width": 8, "channels": [1, 2]})
    measured: list = field(default_factory=list)

    def fingerprint(self):
        return self.config

    def agrees(self, recorded):
        return recorded == self.config

    def measure(self, folder, device, listener):
        self.measured.append(device)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Listed(Experiment):
    """The cells that it is given."""

    name = "listed"
    models = ("slotssm",)
    scales: dict = {}  # noqa: RUF012

    def __init__(self, cells):
        self.listed = cells

    def cells(self, choice):
        return self.listed

    def lengths(self, scale):
        return []

    def rows(self, records):
        return compare(records, ["mse"])

    def table(self, rows, choice):
        return Table("listed", ("model", "mse"), [(row.model, str(row.metrics["mse"])) for row in rows])

    def draw(self, rows, folder):
        return []


def files(folder):
    """Files of a folder, without locks, which stay and mean nothing."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return sorted(str(path.relative_to(folder)) for path in found)


# --- recording --------------------------------------------------------------------------------------------


def test_a_cell_is_measured_once_and_then_read(tmp_path):
    cell = Stub({"values": {"mse": 0.1}, "parameters": 5})
    first = run_cell(cell, tmp_path, "cpu", NOBODY)
    again = run_cell(cell, tmp_path, "cpu", NOBODY)
    assert cell.measured == ["cpu"]
    assert again == first == read_record(cell, tmp_path)
    assert {"cell": "stub", "model": "slotssm", "seed": 4, "failed": None, "parameters": 5}.items() <= first.items()
    assert (first["setting"], first["values"], first["config"]) == (cell.setting, {"mse": 0.1}, cell.config)
    assert first["machine"]["torch"] == torch.__version__
    assert files(tmp_path) == ["cells/stub.json"]


def test_a_cell_that_is_not_done_has_no_record(tmp_path):
    assert read_record(Stub({}), tmp_path) is None
    assert files(tmp_path) == []


def test_a_record_of_another_configuration_is_refused(tmp_path):
    cell = Stub({"values": {}})
    run_cell(cell, tmp_path, "cpu", NOBODY)
    before = record_path(cell, tmp_path).read_bytes()
    other = replace(cell, config={"width": 16})
    for look in (lambda: run_cell(other, tmp_path, "cpu", NOBODY), lambda: read_record(other, tmp_path)):
        with pytest.raises(InputError, match=r"stub\.json was made with another configuration.*`out`.*remove the file"):
            look()
    assert len(cell.measured) == 1
    assert record_path(cell, tmp_path).read_bytes() == before


def test_a_damaged_record_is_named(tmp_path):
    cell = Stub({"values": {}})
    run_cell(cell, tmp_path, "cpu", NOBODY)
    record_path(cell, tmp_path).write_text('{"cell": "st')
    with pytest.raises(InputError, match=r"stub\.json cannot be read as JSON"):
        run_cell(cell, tmp_path, "cpu", NOBODY)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (SlotSSMError("the loss became nan at step 3"), "not converged: the loss became nan at step 3"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), NO_MEMORY),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), NO_MEMORY),
        (MemoryError(), NO_MEMORY),
    ],
)
def test_what_does_not_converge_or_fit_is_recorded_as_failed_and_tried_again_on_request(
    tmp_path, error, failed, monkeypatch
):
    monkeypatch.setattr(cells_module, "free_memory", lambda device: 5 << 29)
    cell = Stub(error)
    record = run_cell(cell, tmp_path, "cpu", NOBODY)
    assert (record["failed"], record["values"]) == (failed, {})
    assert run_cell(cell, tmp_path, "cpu", NOBODY) == record
    assert len(cell.measured) == 1
    assert files(tmp_path) == ["cells/stub.json"]
    assert run_cell(cell, tmp_path, "cpu", NOBODY, retry_failed=True)["failed"] == failed
    assert len(cell.measured) == 2
    better = run_cell(Stub({"values": {"mse": 1.0}}), tmp_path, "cpu", NOBODY, retry_failed=True)
    assert (better["failed"], better["values"]) == (None, {"mse": 1.0})


@pytest.mark.parametrize(
    "error",
    [
        InputError("data.h5 is damaged"),
        BusyError("runs/a is in use by another process"),
        Interrupted("SIGTERM: saved step 3"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ZeroDivisionError("division by zero"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_go_better_next_time_is_raised_and_not_recorded(tmp_path, error):
    cell = Stub(error)
    for _ in range(2):
        with pytest.raises(type(error)):
            run_cell(cell, tmp_path, "cpu", NOBODY)
    assert len(cell.measured) == 2
    assert files(tmp_path) == []
    assert run_cell(Stub({"values": {"mse": 1.0}}), tmp_path, "cpu", NOBODY)["failed"] is None


def test_an_interruption_says_that_the_same_command_continues(tmp_path):
    stop = Interrupted("SIGTERM: saved step 3 of 9 in runs/a; slotssm train --resume --out runs/a continues")
    with pytest.raises(Interrupted) as told:
        run_cell(Stub(stop), tmp_path, "cpu", NOBODY)
    assert str(told.value) == "SIGTERM: saved step 3 of 9 in runs/a; the same command continues"


def test_numbers_that_json_does_not_have_leave_no_record_behind(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        run_cell(Stub({"values": {"mse": float("nan")}}), tmp_path, "cpu", NOBODY)
    assert files(tmp_path) == []


# --- training ---------------------------------------------------------------------------------------------


def tiny(name, start=None, patches=1, **train):
    """A cell of a few steps on a few episodes."""
    steps = {"num_steps": 4, "batch_size": 4, "checkpoint_every_steps": 2, "log_every_steps": 1, "eval_every_steps": 0}
    data = {"num_train": 16, "num_val": 0, "num_test": 3}
    changes = {"data": data, "task": {"patches_per_side": patches}, "train": steps | train}
    config = override(preset("tiny-bcb"), changes, "test")
    return TrainingCell(name, "slotssm", {"patches": patches}, config, ("mse", "white-floor"), start)


def pair(**train):
    """A cell, and one that starts from its weights."""
    first = tiny("first")
    return first, tiny("second", first, patches=2, num_steps=3, **train)


def run_of(cell, folder):
    return RunDirectory(folder / "runs" / cell.name)


def weights(cell, folder):
    return load_run(run_of(cell, folder))[0].state_dict()


def counting(steps):
    def on_step(report):
        if not report.message:
            steps.append((report.step, report.num_steps))

    return ProgressCallbacks(on_step=on_step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Both cells in one go: the folder, the second's record, and the steps that were taken."""
    folder, steps = tmp_path_factory.mktemp("whole"), []
    return folder, run_cell(pair()[1], folder, "cpu", counting(steps)), steps


def test_a_training_cell_records_scores_sizes_and_where_they_come_from(whole):
    folder, record, _ = whole
    _, second = pair()
    run = run_of(second, folder)
    assert set(record["values"]) == {"mse", "white-floor"} == {result["metric"] for result in record["results"]}
    assert record["values"] == {result["metric"]: result["value"] for result in record["results"]}
    assert (record["num_episodes"], record["starts_from"], record["failed"]) == (3, "first", None)
    assert record["parameters"] == sum(p.numel() for p in load_run(run)[0].parameters())
    assert record["data_sha256"] == run.read()["data_sha256"]
    assert record["training_s"] == pytest.approx(sum(line["seconds"] for line in read_lines(run.timing)), abs=0.1)
    assert record["config"] == second.fingerprint() == json.loads(json.dumps(second.fingerprint()))
    height, width, channels = read_picture(picture_path(second, folder)).shape
    assert (height, width, channels) == (2 * 16, 3 * 17, 3)


def test_a_chain_trains_its_predecessor_first_and_does_not_record_it(whole):
    folder, record, steps = whole
    first, _ = pair()
    assert steps == [(n, 4) for n in (1, 2, 3, 4)] + [(n, 3) for n in (1, 2, 3)]
    assert run_of(first, folder).is_complete()
    assert read_record(first, folder) is None
    assert record["config"]["start"] == first.fingerprint()


def test_a_successor_starts_exactly_from_the_last_weights(tmp_path):
    # steps too small to change a weight: what is trained is where it started
    first, second = pair(learning_rate=1e-30)
    alone = replace(second, name="alone", start=None)
    for cell in (second, alone):
        run_cell(cell, tmp_path, "cpu", NOBODY)
    before, after, afresh = (weights(cell, tmp_path) for cell in (first, second, alone))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-25)
    assert any(not torch.equal(afresh[name], after[name]) for name in after)


def test_a_predecessor_that_is_done_is_not_trained_again(whole, tmp_path):
    first, second = pair()
    run_cell(first, tmp_path, "cpu", NOBODY)
    log, steps = run_of(first, tmp_path).metrics.read_bytes(), []
    record = run_cell(second, tmp_path, "cpu", counting(steps))
    assert steps == [(n, 3) for n in (1, 2, 3)]
    assert run_of(first, tmp_path).metrics.read_bytes() == log
    assert record["values"] == whole[1]["values"]


@pytest.mark.parametrize("stopped", [2, 5], ids=["in the first", "in the second"])
def test_a_chain_that_was_stopped_ends_as_if_it_had_not_been(whole, tmp_path, stopped):
    first, second = pair()
    steps = []

    def stop(report):
        if not report.message:
            steps.append(report.step)
        if len(steps) == stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"^SIGTERM: saved step \d of \d in .*; the same command continues$"):
        run_cell(second, tmp_path, "cpu", ProgressCallbacks(on_step=stop))
    assert read_record(second, tmp_path) is None
    assert len(steps) == stopped
    record = run_cell(second, tmp_path, "cpu", ProgressCallbacks(on_step=stop))
    assert len(steps) == 7
    assert record["values"] == whole[1]["values"]
    for cell in (first, second):
        ours, theirs = weights(cell, tmp_path), weights(cell, whole[0])
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_of_another_configuration_is_refused(tmp_path):
    cell = tiny("first")
    run_cell(cell, tmp_path, "cpu", NOBODY)
    record_path(cell, tmp_path).unlink()
    with pytest.raises(InputError, match="runs/first was started with another configuration; remove it, or choose"):
        run_cell(tiny("first", batch_size=5), tmp_path, "cpu", NOBODY)


def test_a_changed_predecessor_makes_another_cell(whole):
    folder, *_ = whole
    _, second = pair()
    with pytest.raises(InputError, match="another configuration"):
        read_record(replace(second, start=tiny("first", batch_size=5)), folder)
    with pytest.raises(InputError, match="another configuration"):
        read_record(replace(second, start=None), folder)


def test_a_loss_that_is_not_finite_is_a_result(tmp_path):
    cell = tiny("steep", learning_rate=1e30, warmup_steps=0, grad_clip_norm=0)
    record = run_cell(cell, tmp_path, "cpu", NOBODY)
    assert record["failed"].startswith("not converged: ")
    assert record["values"] == {}
    assert not picture_path(cell, tmp_path).exists()


@pytest.mark.parametrize("busy", ["first", "second"])
def test_cells_that_others_are_at_work_on_are_left_for_later(tmp_path, busy):
    first, second = pair()
    stub = Stub({"values": {"mse": 0.5}})
    notes = []
    with ExitStack() as stack:
        (tmp_path / "runs" / busy).mkdir(parents=True)
        stack.enter_context(exclusive(RunDirectory(tmp_path / "runs" / busy).lock))
        with pytest.raises(BusyError):
            run_cell(second, tmp_path, "cpu", NOBODY)
        cells = [second, stub]
        made = reproduce(Listed(cells), Choice("tiny"), tmp_path, cells, "cpu", on_note=notes.append)
    assert notes == ["second: another process is measuring it; continuing with the next"]
    assert (made.num_done, made.missing) == (1, ["second"])
    assert made.table.rows == [("slotssm", "0.5000")]
    assert read_record(second, tmp_path) is None
    # nothing of the busy run was touched
    assert [path.name for path in (tmp_path / "runs" / busy).iterdir()] == [".lock"]
    assert run_of(first, tmp_path).is_complete() == (busy == "second")


def test_a_failed_cell_is_said_and_the_others_are_run(tmp_path):
    cells = [Stub(SlotSSMError("nan"), "a"), Stub({"values": {"mse": 0.5}}, "b", seed=1)]
    notes, heard = [], []

    def listen(index, total, cell):
        heard.append((index, total, cell.name))
        return NOBODY

    made = reproduce(Listed(cells), Choice("tiny"), tmp_path, cells, "cpu", listen, notes.append)
    assert notes == ["a: not converged: nan"]
    assert heard == [(0, 2, "a"), (1, 2, "b")]
    assert (made.num_done, made.missing) == (2, [])
    assert made.rows[0].failed == {4: "not converged: nan"}
    reproduce(Listed(cells), Choice("tiny"), tmp_path, cells, "cpu", listen, notes.append)
    assert (len(notes), len(heard)) == (1, 2)


def test_a_signal_ends_a_reproduction_and_leaves_the_rest_undone(tmp_path):
    cells = [Stub({"values": {"mse": 0.5}}, "a"), Stub(Interrupted("SIGTERM"), "b"), Stub({"values": {}}, "c")]
    with pytest.raises(Interrupted):
        reproduce(Listed(cells), Choice("tiny"), tmp_path, cells, "cpu")
    assert files(tmp_path) == ["cells/a.json", "plan.json"]
    assert [len(cell.measured) for cell in cells] == [1, 1, 0]


def test_nothing_done_writes_nothing(tmp_path):
    cells = [Stub({"values": {"mse": 0.5}})]
    made = reproduce(Listed(cells), Choice("tiny"), tmp_path / "out", [], "cpu")
    assert (made.num_done, made.missing, made.files) == (0, ["stub"], [])
    assert not (tmp_path / "out").exists()


def test_a_chain_goes_on_however_its_folder_is_spelt(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, second = pair()
    steps = []

    def stop(report):
        if not report.message:
            steps.append(report.step)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    relative = (tmp_path / "out").relative_to(tmp_path)
    with pytest.raises(Interrupted):
        run_cell(second, relative, "cpu", ProgressCallbacks(on_step=stop))
    assert run_cell(second, relative.resolve(), "cpu", NOBODY)["values"] == whole[1]["values"]


def test_a_record_without_a_field_means_its_default():
    first, second = pair()
    shorter = second.fingerprint()
    del shorter["train"]["ema_decay"], shorter["start"]["model"]["layer_mlp_ratio"]
    assert second.agrees(shorter)
    assert not second.agrees(first.fingerprint())
    assert not first.agrees(second.fingerprint())


def test_a_data_file_counts_by_its_content_and_not_by_its_place():
    config = tiny("first").config

    def cell(path, sha256):
        return TrainingCell("a", "slotssm", {}, config.replace(data=FileData(path=path, sha256=sha256)))

    recorded = cell("there/a.h5", "1").fingerprint()
    assert cell("here/b.h5", "1").agrees(recorded)
    assert not cell("there/a.h5", "2").agrees(recorded)
    assert not tiny("first").agrees(recorded)
