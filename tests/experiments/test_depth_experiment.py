"""The depth comparison: what it trains on which data, sizes with their encoders, its table and figures."""

from dataclasses import replace

import h5py
import pytest
from own_task import own_task

from generators.writer import generate
from slotssm.errors import InputError
from slotssm.evaluation import ScoringOptions
from slotssm.experiments.datasets import file_data
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import ProgressCallbacks, run_cell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.studies import depth
from slotssm.experiments.reproductions.studies.depth import DEPTH, SEGMENTATION, SIZES, DepthPrediction
from slotssm.experiments.runs import evaluate_run
from slotssm.models import OCSlotSSMConfig, SAViPlusPlusConfig
from slotssm.tasks import DepthConfig, ReconstructConfig
from slotssm.training.run import RunDirectory


@pytest.fixture(scope="module")
def tabletop(tmp_path_factory):
    """A small file with depth and masks."""
    path = tmp_path_factory.mktemp("data") / "my table.h5"
    generate(preset("tiny-depth").data.replace(num_train=4, num_val=0, num_test=2), path, workers=1)
    return path


def copy_without(path, target, *names: str):
    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        for split in ("train", "test"):
            for name in names:
                del file[f"{split}/{name}"]
    return target


@pytest.mark.parametrize("scale", SIZES)
def test_both_models_have_one_size_with_their_encoders(scale):
    cells = DepthPrediction().cells(Choice(scale, seeds=(0,)))
    assert {(cell.setting["trained by"], cell.model) for cell in cells} == {
        (target, model) for target in ("depth", "reconstruction") for model in ("oc-slotssm", "savi++")
    }
    sizes = {}
    for cell in cells:
        task = own_task(cell.config)
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in task.named_children()}
        sizes.setdefault(cell.setting["trained by"], []).append((parts["encoder"] + parts["model"], parts["decoder"]))
        assert type(cell.config.model) is (OCSlotSSMConfig if cell.model == "oc-slotssm" else SAViPlusPlusConfig)
        assert cell.config.task.encoder == ("cnn" if cell.model == "oc-slotssm" else "residual")
    for (ours, our_decoder), (theirs, their_decoder) in sizes.values():
        assert theirs == pytest.approx(ours, rel=0.05)
        assert their_decoder == our_decoder


def test_there_are_three_seeds_and_the_first_comes_first():
    cells = DepthPrediction().cells(Choice("cpu"))
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4 + [2] * 4
    assert [cell.name for cell in cells[:2]] == [
        "tabletop-moving-depth-oc-slotssm-s0",
        "tabletop-moving-depth-savi++-s0",
    ]
    assert DepthPrediction().cells(Choice("tiny"))[-1].seed == 0


@pytest.mark.parametrize(
    ("missing", "targets"),
    [
        ((), {"depth": DEPTH + SEGMENTATION, "reconstruction": ("mse", *SEGMENTATION)}),
        (("masks",), {"depth": DEPTH}),
        (("depth",), dict.fromkeys(("reconstruction", "reconstruction, canvas"), ("mse", *SEGMENTATION))),
    ],
)
def test_data_decide_what_is_trained(tabletop, tmp_path, missing, targets):
    path = copy_without(tabletop, tmp_path / "mine.h5", *missing)
    cells = DepthPrediction().cells(Choice("tiny", models=("oc-slotssm",), data=(path,)))
    assert {cell.setting["trained by"]: cell.metrics for cell in cells} == targets
    for cell in cells:
        target = cell.setting["trained by"]
        assert type(cell.config.task) is (DepthConfig if target == "depth" else ReconstructConfig)
        assert cell.config.data == file_data(path)
        if target != "depth":
            task = cell.config.task
            assert (task.canvas, task.canvas_cells) == (("image", 2) if "canvas" in target else ("none", 4))
            assert cell.config.task.decoder_channels == preset("tiny-depth").task.decoder_channels


def test_data_with_neither_depth_nor_stable_masks_are_refused(tabletop, tmp_path):
    bare = copy_without(tabletop, tmp_path / "bare.h5", "depth", "masks")
    loose = copy_without(tabletop, tmp_path / "loose.h5", "depth")
    with h5py.File(loose, "r+") as file:
        file["test/masks"].attrs["ids"] = "per-frame"
    for path in (bare, loose):
        with pytest.raises(InputError, match="neither depth nor masks whose ids are stable"):
            DepthPrediction().cells(Choice("tiny", data=(path,)))


@pytest.mark.parametrize(("passes", "num_steps"), [(150, 300), (4000, 1000), (100_000, 4000)])
def test_trainings_on_small_files_are_short_and_gentle(tabletop, monkeypatch, passes, num_steps):
    """The file has four episodes, and the preset batches of 16 and 4,000 steps."""
    monkeypatch.setattr(depth, "MOST_PASSES", passes)
    base = preset("cpu-depth").train
    assert (base.batch_size, base.num_steps) == (16, 4000)
    for cell in DepthPrediction().cells(Choice("cpu", models=("oc-slotssm",), seeds=(0,), data=(tabletop,))):
        train = cell.config.train
        assert train.num_steps == num_steps
        assert (train.phases, train.learning_rate) == (
            (base.phases, base.learning_rate) if num_steps == 4000 else ((), base.learning_rate / 4)
        )


def test_what_is_learned_by_heart_is_scored_before(tabletop, tmp_path):
    """On a file with a validation split, the best checkpoint is scored; without one, and on own data, the last."""
    path = tmp_path / "with-val.h5"
    generate(preset("tiny-depth").data.replace(num_train=4, num_val=2, num_test=2), path, workers=1)
    cells = DepthPrediction().cells(Choice("tiny", models=("oc-slotssm",), data=(path,)))
    assert [cell.config.train.keep_best for cell in cells] == ["log-depth-mse", "mse"]
    assert {cell.checkpoint for cell in cells} == {"best"}
    for choice in (Choice("tiny"), Choice("tiny", data=(tabletop,))):
        assert {cell.checkpoint for cell in DepthPrediction().cells(choice)} == {"last"}
    cell = cells[0]
    # a learning rate that ruins the weights sooner or later
    train = cell.config.train.replace(num_steps=8, batch_size=2, eval_every_steps=1, learning_rate=0.2, warmup_steps=0)
    record = run_cell(replace(cell, config=cell.config.replace(train=train)), tmp_path, "cpu", ProgressCallbacks())
    errors = {line["step"]: line["log-depth-mse"] for line in record["validation"] if "log-depth-mse" in line}
    assert record["checkpoint_step"] == min(errors, key=errors.get) < 8
    run = RunDirectory(tmp_path / "runs" / cell.name)
    values = {
        which: evaluate_run(run, path, "test", DEPTH, ScoringOptions(), "cpu", lambda *_: None, which).values()
        for which in ("best", "last")
    }
    assert record["values"]["log-depth-mse"] == values["best"]["log-depth-mse"] < values["last"]["log-depth-mse"]


def test_cells_are_measured_and_compared(tabletop, tmp_path):
    experiment, choice = DepthPrediction(), Choice("tiny", data=(tabletop,))
    records = []
    for cell in experiment.cells(choice):
        few = cell.config.replace(train=cell.config.train.replace(num_steps=2, batch_size=2))
        records.append(run_cell(replace(cell, config=few), tmp_path / "out", "cpu", ProgressCallbacks()))
    assert all(record["failed"] is None for record in records)
    rows = experiment.rows(records)
    table = experiment.table(rows, choice)
    assert [row[:3] for row in table.rows] == [
        ("my table", target, model) for target in ("depth", "reconstruction") for model in ("oc-slotssm", "savi++")
    ]
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    for heading in ("log depth MSE", "mean depth: log depth MSE", "mean depth: abs. rel."):
        assert [text == "–" for text in columns[heading]] == [False, False, True, True]
    (same,) = {text for text in columns["mean depth: abs. rel."] if text != "–"}
    assert float(same) > 0
    assert [text == "–" for text in columns["MSE of RGB"]] == [True, True, False, False]
    drawn = experiment.draw(rows, tmp_path)
    assert [path.name for path in drawn] == ["log-depth-mse.png", "fg-ari.png", "miou.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
