"""A forecast costs a moment, leaves nothing behind, and knows what is done."""

import importlib
import tempfile
from dataclasses import replace

import pytest

from slotssm.documents import override
from slotssm.experiments import presets
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.overview.forecast import forecast
from slotssm.experiments.reproductions.cells import ProgressCallbacks, record_path, run_cell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.studies import long_context
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.tasks import build_task


@pytest.fixture
def chain(monkeypatch):
    """Three tiny cells of a few steps: a chain of two, and one alone."""
    train = {"num_steps": 3, "checkpoint_every_steps": 3, "eval_every_steps": 0}
    short = override(presets.preset("tiny-bcb"), {"train": train, "data": {"num_train": 8, "num_val": 0}}, "test")
    monkeypatch.setitem(presets.PRESETS, "tiny-bcb", lambda: short)
    chain, alone = long_context.SERIES["tiny"]
    stages = tuple(
        replace(stage, num_steps=steps, eval_every_steps=0) for stage, steps in zip(chain.stages, (3, 2), strict=True)
    )
    monkeypatch.setattr(long_context, "SERIES", {"tiny": (replace(chain, stages=stages), alone)})
    return EXPERIMENTS["long-context"].cells(Choice("tiny", ("slotssm",)))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Empty folders for everything that is written on the way; gives the one for temporary files."""
    importlib.import_module("torch._dynamo")  # makes a folder for temporary files of its own when it is first imported
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def test_cells_that_may_end_early_make_the_forecast_a_limit(chain, nowhere, tmp_path):
    assert not forecast(chain, tmp_path / "out").may_end_early
    first = chain[0]
    patient = first.config.train.replace(num_steps=20, eval_every_steps=10, keep_best="mse", patience=1)
    config = first.config.replace(train=patient, data=first.config.data.replace(num_val=2))
    assert forecast([replace(first, config=config)], tmp_path / "out").may_end_early


def test_done_and_missing_cells_are_told_apart(chain, nowhere, tmp_path):
    folder = tmp_path / "out"
    record = run_cell(chain[0], folder, "cpu", ProgressCallbacks())
    before = sorted(folder.rglob("*"))
    told = []
    plan = forecast(chain, folder, lambda done, total: told.append((done, total)))
    assert [cell.name for cell in plan.cells] == [cell.name for cell in chain]
    assert [cell.done for cell in plan.cells] == [True, False, False]
    assert [cell.num_steps for cell in plan.cells] == [3, 2, 3]
    assert plan.cells[0].parameters == record["parameters"]
    # only what is not done counts
    assert plan.seconds == sum(cell.seconds for cell in plan.cells[1:])
    assert plan.disk_bytes == plan.data_bytes + sum(cell.disk_bytes for cell in plan.cells[1:])
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    # nothing was written anywhere
    assert sorted(folder.rglob("*")) == before
    assert not list(nowhere.iterdir())
    assert not list((tmp_path / "here").iterdir())


def test_costs_are_positive_and_sizes_are_those_of_the_task(chain, nowhere, tmp_path):
    plan = forecast(chain, tmp_path / "out")
    for cell, told in zip(chain, plan.cells, strict=True):
        size = sum(parameter.numel() for parameter in build_task(cell.config, spec_of(cell.config.data)).parameters())
        assert told.parameters == size
        # weights and two moments in float32, in the two checkpoints that are kept and the one being written
        assert told.disk_bytes == size * 3 * 4 * 3
        assert told.seconds > 0
    assert plan.data_bytes > 0
    assert not (tmp_path / "out").exists()
    document = plan.document()
    assert document["dry_run"] is True
    assert document["seconds"] == plan.seconds > 0
    assert [cell["name"] for cell in document["cells"]] == [cell.name for cell in chain]


def test_data_that_is_there_costs_no_space(chain, nowhere, tmp_path):
    alone = chain[-1:]
    before = forecast(alone, tmp_path)
    run_cell(alone[0], tmp_path, "cpu", ProgressCallbacks())
    record_path(alone[0], tmp_path).unlink()
    after = forecast(alone, tmp_path)
    assert before.data_bytes > after.data_bytes == 0
    assert after.disk_bytes == after.cells[0].disk_bytes


def test_cells_that_differ_in_their_seed_alone_are_measured_once(chain, nowhere, tmp_path, monkeypatch):
    cells = EXPERIMENTS["long-context"].cells(Choice("tiny", ("slotssm",), (0, 1, 2), (5,)))
    plan = forecast(cells, tmp_path)
    assert len(plan.cells) == 3
    assert len({cell.seconds for cell in plan.cells}) == 1


def test_cells_without_training_cost_no_steps(nowhere, tmp_path):
    plan = forecast(EXPERIMENTS["efficiency"].cells(Choice("paper", ("slotssm",), lengths=(80,))), tmp_path)
    (cell,) = plan.cells
    assert (cell.name, cell.done, cell.num_steps, plan.disk_bytes) == ("L80-slotssm", False, 0, 0)


def test_what_a_cell_starts_from_counts_until_it_is_trained(chain, nowhere, tmp_path):
    last = next(cell for cell in chain if cell.start is not None)
    names = [line.name for line in forecast([last], tmp_path / "out").cells]
    assert names == [last.start.name, last.name]
    last.start.train(tmp_path / "out", "cpu", ProgressCallbacks())
    assert [line.name for line in forecast([last], tmp_path / "out").cells] == [last.name]
