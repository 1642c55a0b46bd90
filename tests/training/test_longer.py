"""Runs that keep their best checkpoint, that are extended, and that are resumed in between."""

import json
import logging
import shutil

import pytest
from safetensors.torch import load_file
from torch import equal

from slotssm.config import TrainConfig
from slotssm.data.contents import content_hash
from slotssm.errors import InputError, Interrupted
from slotssm.evaluation.catalog import METRICS
from slotssm.experiments import runs
from slotssm.experiments.datasets import spec_of
from slotssm.interrupts import StopRequest
from slotssm.training import checkpoint
from slotssm.training import trainer as trainer_module
from slotssm.training.optimization import learning_rate
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

FAST = ("train.num_steps=4", "train.checkpoint_every_steps=2", "train.eval_every_steps=1", "train.log_every_steps=1")


def train(config, data, run, resume=False) -> None:
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    if resume:
        trainer.resume()
    trainer.train()


def same_weights(ours, theirs) -> bool:
    a, b = (load_file(folder / checkpoint.MODEL) for folder in (ours, theirs))
    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def trained(run, data):
    """Give the record the hash that resuming asks for."""
    run.record.write_text(json.dumps(run.read() | {"data_sha256": content_hash(data)}))


# --- the best checkpoint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["mse", "fg-ari"])
def test_the_best_checkpoint_is_that_of_the_best_logged_validation(tiny_run, metric):
    config, data, run = tiny_run("tiny-oc", *FAST, f"train.keep_best={metric}", "train.keep_checkpoints=9")
    config = config.replace(train=config.train.replace(checkpoint_every_steps=1))
    train(config, data, run)
    values = {line["step"]: line[metric] for line in read_lines(run.metrics) if line["split"] == "val"}
    best = (min if METRICS[metric].lower_is_better else max)(values, key=values.get)
    record = json.loads((run.checkpoints / "best" / "best.json").read_text())
    assert record == {"step": best, "metric": metric, "value": values[best]}
    assert same_weights(run.checkpoints / "best", run.checkpoints / f"step-{best:08d}")
    # it is loaded by name, and is never what a run is resumed from
    assert checkpoint.chosen_checkpoint(run.checkpoints, "best").name == "best"
    assert checkpoint.latest(run.checkpoints).name == "step-00000004"
    task, description = checkpoint.load_task(run.checkpoints / "best")
    assert description.config == config
    assert not task.training


def test_of_a_moving_average_the_average_is_kept(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST, "train.keep_best=mse", "train.ema_decay=0.5")
    train(config, data, run)
    record = json.loads((run.checkpoints / "best" / "best.json").read_text())
    if record["step"] == 4:
        assert same_weights(run.checkpoints / "best", run.checkpoints / "step-00000004")
    else:
        assert not same_weights(run.checkpoints / "best", run.checkpoints / "step-00000004")


def test_a_resumed_run_keeps_the_same_best_checkpoint(tiny_run, monkeypatch):
    whole, parted = (tiny_run("tiny-oc", *FAST, "train.keep_best=mse", folder=name) for name in ("whole", "parted"))
    train(*whole)
    config, data, run = parted
    # stopped after step 3, of which step 2 is saved last; the best until then may be of step 3
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer,
            "_maybe_stop",
            lambda self, stop: (_ for _ in ()).throw(KeyboardInterrupt()) if self.step == 3 else None,
        )
        with pytest.raises(KeyboardInterrupt):
            train(config, data, run)
    assert checkpoint.latest(run.checkpoints).name == "step-00000002"
    train(config, data, run, resume=True)
    ours, theirs = (each[2].checkpoints / "best" for each in (parted, whole))
    assert (ours / "best.json").read_text() == (theirs / "best.json").read_text()
    assert same_weights(ours, theirs)


def test_a_metric_of_labels_is_warned_of_in_one_line(tiny_run, caplog):
    for metric, told in (("mse", 0), ("fg-ari", 1)):
        caplog.clear()
        config, data, run = tiny_run("tiny-oc", *FAST, f"train.keep_best={metric}", folder=metric)
        with caplog.at_level(logging.WARNING, "slotssm"):
            Trainer(config, spec_of(config.data), data, run, "cpu")
        assert [("labels" in record.message) for record in caplog.records] == [True] * told


def test_a_metric_that_is_not_validated_is_refused(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST, "train.keep_best=psnr")
    with pytest.raises(InputError, match=r"train.keep_best psnr is not validated; there are .*fg-ari"):
        Trainer(config, spec_of(config.data), data, run, "cpu")
    with pytest.raises(ValueError, match="keep_best needs validations"):
        TrainConfig(keep_best="mse", eval_every_steps=0)


# --- extension --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_an_extended_run_is_bitwise_the_longer_one_with_the_shorter_schedule(tiny_run, schedule):
    options = (*FAST, f"train.schedule={schedule}", "train.warmup_steps=1")
    config, data, run = tiny_run("tiny-oc", *options)
    train(config, data, run)
    trained(run, data)
    runs.extend_run(run, 3, "cpu", lambda report: None, data)
    longer, _, whole = tiny_run("tiny-oc", *options, "train.num_steps=7", "train.schedule_steps=4", folder="whole")
    train(longer, data, whole)
    assert run.config() == longer
    assert run.is_complete()
    assert run.metrics.read_text() == whole.metrics.read_text()
    assert same_weights(checkpoint.latest(run.checkpoints), checkpoint.latest(whole.checkpoints))
    (event,) = run.read()["extended"]
    assert (event["from_step"], event["num_steps"]) == (4, 7)


def test_an_extension_that_is_interrupted_is_resumed_as_any_run(tiny_run, monkeypatch):
    config, data, run = tiny_run("tiny-oc", *FAST)
    train(config, data, run)
    trained(run, data)
    copy = RunDirectory(shutil.copytree(run.path, run.path.with_name("copy")))
    runs.extend_run(run, 4, "cpu", lambda report: None, data)

    def stop(self, request: StopRequest) -> None:
        if self.step == 5:
            self.save()
            raise Interrupted("at step 5")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_maybe_stop", stop)
        with pytest.raises(Interrupted):
            runs.extend_run(copy, 4, "cpu", lambda report: None, data)
    assert not copy.is_complete()
    with pytest.raises(InputError, match="is not complete; `resume` continues it"):
        runs.extend_run(copy, 4, "cpu", lambda report: None, data)
    runs.resume_run(copy, "cpu", lambda report: None, data)
    assert same_weights(*(checkpoint.latest(each.checkpoints) for each in (run, copy)))
    assert copy.metrics.read_text() == run.metrics.read_text()


def test_after_its_schedule_the_learning_rate_keeps_its_final_value():
    config = TrainConfig(num_steps=30, schedule_steps=20, warmup_steps=5, learning_rate=1.0)
    shorter = config.replace(num_steps=20, schedule_steps=None)
    assert [learning_rate(config, step) for step in range(20)] == [learning_rate(shorter, step) for step in range(20)]
    assert [learning_rate(config, step) for step in range(20, 30)] == pytest.approx([0.1] * 10)
