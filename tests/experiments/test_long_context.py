"""Long-context reasoning: one curriculum for all numbers of balls, tests of each, and trainings that cost too much."""

from dataclasses import replace

import pytest

from slotssm.documents import override
from slotssm.evaluation import ScoringOptions
from slotssm.experiments import presets
from slotssm.experiments.datasets import own_data_path
from slotssm.experiments.reproductions.cells import ProgressCallbacks, read_record
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.reproduce import reproduce
from slotssm.experiments.reproductions.studies import long_context
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.experiments.reproductions.studies.long_context import SERIES
from slotssm.experiments.reproductions.studies.long_context_table import (
    LEARNED,
    METRICS,
    rows_of,
    steps_to_learn,
    table_of,
)
from slotssm.experiments.runs import score_run
from slotssm.training.run import RunDirectory

EXPERIMENT = EXPERIMENTS["long-context"]
CHOICE = Choice("tiny", ("slotssm",))


@pytest.fixture(scope="module")
def short():
    """Two tiny stages of a few steps, of which the best checkpoint is scored, and a cell alone."""
    with pytest.MonkeyPatch.context() as patch:
        train = {"num_steps": 3, "checkpoint_every_steps": 3, "eval_every_steps": 0}
        base = override(presets.preset("tiny-bcb"), {"train": train, "data": {"num_train": 16}}, "test")
        kept = base.replace(train=base.train.replace(eval_every_steps=1, keep_best="mse"))
        patch.setitem(presets.PRESETS, "tiny-bcb", lambda: kept)
        chain, alone = SERIES["tiny"]
        stages = tuple(replace(stage, num_steps=4, eval_every_steps=1) for stage in chain.stages)
        patch.setattr(long_context, "SERIES", {**SERIES, "tiny": (replace(chain, stages=stages), alone)})
        yield


@pytest.fixture(scope="module")
def made(short, tmp_path_factory):
    """The records of the tiny cells, and their folder."""
    folder = tmp_path_factory.mktemp("long-context")
    cells = EXPERIMENT.cells(CHOICE)
    result = reproduce(EXPERIMENT, CHOICE, folder, cells, "cpu")
    return folder, cells, result


def test_each_number_of_balls_is_scored_on_episodes_of_its_own(made):
    folder, cells, result = made
    for cell in cells[:2]:
        run, record = RunDirectory(folder / "runs" / cell.name), read_record(cell, folder)
        assert set(record["values"]) == {f"{name}@{balls}-balls" for name in METRICS for balls in (1, 2)}
        for name, data in cell.tests.items():
            path = own_data_path(cell.config.replace(data=data), folder / "data")
            found = score_run(run, path, "test", METRICS, ScoringOptions(), "cpu", lambda *_: None, "best")
            for metric, value in found.report.values().items():
                assert record["values"][f"{metric}@{name}"] == value
        rows = [row for row in result.rows if row.records[0]["cell"] == cell.name]
        assert [row.setting["balls"] for row in rows] == [1, 2]
        for row in rows:
            name = f"@{row.setting['balls']}-balls"
            assert {metric: row.metrics[metric].mean for metric in METRICS} == {
                metric: record["values"][metric + name] for metric in METRICS
            }
            assert row.metrics["mse"].interval is not None
    # without numbers to test, the test split of the run itself
    assert [row.setting["balls"] for row in result.rows if row.setting["rule"] == "frequent"] == [2]


def test_a_stage_starts_from_the_best_weights_of_the_one_before(made):
    folder, cells, _ = made
    first, second = (RunDirectory(folder / "runs" / cell.name) for cell in cells[:2])
    assert second.config().train.initial.run == str(first.checkpoints / "best")
    assert first.config().train.initial is None


def test_a_curriculum_reads_one_data_set(made):
    folder, cells, _ = made
    assert len({own_data_path(cell.config, folder / "data") for cell in cells[:2]}) == 1
    assert {cell.config.task.patches_per_side for cell in cells[:2]} == {1, 2}


@pytest.mark.parametrize(("limit", "value"), [("MOST_S", 0.0), ("MOST_BYTES", 0)])
def test_what_would_cost_too_much_is_skipped_with_what_a_step_costs(short, tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(long_context, limit, value)
    cell = EXPERIMENT.cells(CHOICE)[0]
    result = reproduce(EXPERIMENT, CHOICE, tmp_path, [cell], "cpu")
    record = read_record(cell, tmp_path)
    assert record["failed"].startswith("skipped: it would need ")
    assert record["step_s"] > 0
    assert record["step_bytes"] > 0
    assert not (tmp_path / "runs").exists()
    assert [line[5] for line in result.table.rows] == ["skipped"] * len(cell.tests)
    assert f"slotssm, earliest, L = 5: {record['failed']}." in result.table.notes
    # what would start from it is skipped too, and what is no curriculum never is
    second, alone = EXPERIMENT.cells(CHOICE)[1:3]
    reproduce(EXPERIMENT, CHOICE, tmp_path, [second, alone], "cpu")
    assert read_record(second, tmp_path)["failed"] == f"skipped, since {cell.name} was"
    assert read_record(alone, tmp_path)["failed"] is None


def test_a_run_that_has_begun_is_completed_however_slow_it_seems(short, tmp_path, monkeypatch):
    cell = EXPERIMENT.cells(CHOICE)[0]
    cell.train(tmp_path, "cpu", ProgressCallbacks())
    monkeypatch.setattr(long_context, "MOST_S", 0.0)
    reproduce(EXPERIMENT, CHOICE, tmp_path, [cell], "cpu")
    assert read_record(cell, tmp_path)["failed"] is None


def test_a_record_with_other_tests_is_of_another_cell():
    cell = EXPERIMENT.cells(CHOICE)[0]
    recorded = cell.fingerprint()
    assert cell.agrees(recorded)
    assert not cell.agrees({name: value for name, value in recorded.items() if name != "tests"})
    assert not replace(cell, tests={}).agrees(recorded)


@pytest.mark.parametrize(("scale", "num_first"), [("cpu", 3), ("rates", 4)])
def test_no_training_ends_on_the_first_plateau(scale, num_first):
    cells = EXPERIMENT.cells(Choice(scale, ("slotssm",), (0,)))
    first = [cell.config.train for cell in cells if cell.config.task.patches_per_side == 1]
    assert len(first) == num_first
    assert all(train.patience * train.eval_every_steps >= 2000 for train in first)
    assert all(cell.config.train.patience > 0 for cell in cells)


def test_only_whole_frames_come_in_large_batches():
    sizes = {cell.setting["length"]: cell.config.train.batch_size for cell in EXPERIMENT.cells(Choice("cpu", ("rim",)))}
    assert sizes == {5: 32, 80: 8, 320: 8, 1280: 8, 10: 32, 160: 8, 640: 8, 2560: 8}


def test_learning_rates_are_compared_on_validation_data():
    for cell in EXPERIMENT.cells(Choice("rates", ("slotssm",))):
        assert cell.split == "val"
        assert [(data.num_val, data.num_test) for data in cell.tests.values()] == [(500, 0)]
    for cell in EXPERIMENT.cells(Choice("cpu", ("slotssm",), (0,))):
        assert cell.split == "test"
        assert {(data.num_val, data.num_test) for data in cell.tests.values()} == {(0, 500)}


def test_seeds_that_did_not_learn_are_not_hidden():
    def record(seed, *accuracies):
        lines = [{"step": 10 * i, "split": "val", "color-accuracy": value} for i, value in enumerate(accuracies, 1)]
        setting = {"rule": "earliest", "length": 5, "num_frames": 6, "balls": 2}
        config = {"model": presets.preset("tiny-bcb").model.model_dump(mode="json")}
        values = {"mse": 0.1, "white-floor": 0.2, "color-accuracy": 0.5, "position-iou": 0.5}
        told = {"cell": f"c{seed}", "model": "slotssm", "seed": seed, "failed": None, "validation": lines}
        return {**told, "setting": setting, "values": values, "results": [], "config": config, "checkpoint_step": 20}

    rows = rows_of([record(0, 0.2, 0.7), record(1, 0.2, 0.3), record(2, 0.6, 0.9)])
    (line,) = table_of(rows, "tiny").rows
    assert line[11] == "10 to 20 (2 of 3)"
    (line,) = table_of(rows_of([record(0, 0.1)]), "tiny").rows
    assert line[11] == "–"


def test_steps_to_learn_are_those_of_the_first_validation_above_the_threshold():
    def record(*values: float):
        lines = [{"step": 10 * i, "color-accuracy": value} for i, value in enumerate(values, 1)]
        return {"validation": lines}

    assert steps_to_learn(record(0.1, LEARNED, 0.6, 0.4, 0.9)) == 30
    assert steps_to_learn(record(0.1, 0.2)) is None
    assert steps_to_learn(record()) is None
    assert steps_to_learn({}) is None


@pytest.mark.parametrize("model", EXPERIMENT.models)
def test_learning_rates_are_those_of_the_model_in_every_stage(model, monkeypatch):
    monkeypatch.setattr(long_context, "LEARNING_RATES", {"rim": 7e-4})
    rates = {cell.config.train.learning_rate for cell in EXPERIMENT.cells(Choice("cpu", (model,), (0,)))}
    assert rates == {7e-4 if model == "rim" else presets.preset("cpu-bcb-long").train.learning_rate}
    paper = {cell.config.train.learning_rate for cell in EXPERIMENT.cells(Choice("paper", (model,)))}
    assert paper == {presets.preset("paper-bcb").train.learning_rate}


def test_the_cpu_scale_covers_the_papers_lengths_rules_and_more_balls():
    cells = EXPERIMENT.cells(Choice("cpu", ("slotssm",), (0,)))
    found = {(cell.setting["rule"], cell.setting["num_frames"], cell.setting["length"]) for cell in cells}
    assert found == {
        *(("earliest", 6, length) for length in (5, 80, 320, 1280)),
        *(("frequent", 6, length) for length in (5, 80, 320, 1280)),
        *(("frequent", 11, length) for length in (10, 160, 640, 2560)),
    }
    for cell in cells:
        recipe = cell.config.data.recipe
        assert (recipe.min_balls, recipe.num_balls) == (2, 4)
        assert {data.recipe.num_balls for data in cell.tests.values()} == {2, 3, 4}
        assert cell.config.train.patience > 0
