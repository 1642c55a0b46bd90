"""Trackers hold what metrics.jsonl holds, each step once, and never stop a run."""

import json
import logging
import sys

import pytest

from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.training.run import read_lines
from slotssm.training.trackers import Trackers
from slotssm.training.trainer import Trainer

FAST = ("train.num_steps=4", "train.checkpoint_every_steps=2", "train.eval_every_steps=2", "train.log_every_steps=1")
WANDB = """
import json, os

def Settings(**options):
    return options

def init(**options):
    with open(os.environ["FAKE_WANDB"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"init": {name: options[name] for name in ("id", "mode", "resume", "project")}}) + "\\n")
    return Run()

class Run:
    def log(self, values, step):
        if os.environ.get("FAKE_WANDB_FAILS") == str(step):
            raise RuntimeError("no space\\nfor this")
        with open(os.environ["FAKE_WANDB"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "values": values}) + "\\n")

    def finish(self):
        pass
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A stand-in for the package; a function gives what was told to it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    record = tmp_path / "told.jsonl"
    monkeypatch.setenv("FAKE_WANDB", str(record))
    yield lambda: [json.loads(line) for line in record.read_text().splitlines()]
    sys.modules.pop("wandb", None)


def train(config, data, run, resume=False) -> None:
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    if resume:
        trainer.resume()
    trainer.train()


def killed_after(step, monkeypatch, *arguments) -> None:
    """Train, and end after a step without saving."""

    def stop(self, request):
        if self.step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_maybe_stop", stop)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)


def logged(run):
    """Every number of metrics.jsonl: (name, step) -> value."""
    return {
        (f"{line['split']}/{name}", line["step"]): value
        for line in read_lines(run.metrics)
        for name, value in line.items()
        if name not in ("step", "split")
    }


def tracked(lines):
    found = {}
    for line in lines:
        for name, value in line.get("values", {}).items():
            assert (name, line["step"]) not in found, "a step is recorded twice"
            found[name, line["step"]] = value
    return found


def test_wandb_gets_every_line_offline(tiny_run, wandb):
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["wandb"]')
    train(config, data, run)
    told = wandb()
    assert told[0]["init"] == {"id": json.loads(run.tracking.read_text())["id"], "mode": "offline"} | {
        "resume": "allow",
        "project": "slotssm",
    }
    assert tracked(told) == logged(run)
    assert ("val/fg-ari", 4) in tracked(told)


def test_a_killed_run_continues_the_same_record_without_repeating_a_step(tiny_run, wandb, monkeypatch):
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["wandb"]', "train.num_steps=6")
    config = config.replace(train=config.train.replace(checkpoint_every_steps=4))
    # killed twice before the first checkpoint, the second time earlier than the first
    killed_after(3, monkeypatch, config, data, run)
    killed_after(1, monkeypatch, config, data, run, True)
    train(config, data, run, resume=True)
    told = wandb()
    assert len({line["init"]["id"] for line in told if "init" in line}) == 1
    assert tracked(told) == logged(run)


def test_a_tracker_that_fails_costs_one_warning(tiny_run, wandb, monkeypatch, caplog):
    plain, data, reference = tiny_run("tiny-oc", *FAST, folder="reference")
    train(plain, data, reference)
    monkeypatch.setenv("FAKE_WANDB_FAILS", "2")
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["wandb"]')
    with caplog.at_level(logging.WARNING, "slotssm"):
        train(config, data, run)
    (record,) = caplog.records
    assert record.message == "wandb failed and no longer follows the run: no space"
    assert run.metrics.read_text() == reference.metrics.read_text()


def test_a_run_whose_tracker_failed_brings_the_record_up_to_date(tiny_run, wandb, monkeypatch):
    monkeypatch.setenv("FAKE_WANDB_FAILS", "2")
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["wandb"]', "train.num_steps=6")
    killed_after(4, monkeypatch, config, data, run)
    assert max(line.get("step", 0) for line in wandb()) == 1
    monkeypatch.delenv("FAKE_WANDB_FAILS")
    train(config, data, run, resume=True)
    assert tracked(wandb()) == logged(run)


def test_a_tracker_that_cannot_begin_costs_one_warning(tiny_run, wandb, tmp_path, caplog):
    (tmp_path / "site" / "wandb.py").write_text("raise OSError('broken installation')")
    config, _, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["wandb"]')
    with caplog.at_level(logging.WARNING, "slotssm"):
        Trackers(run, config).write({"step": 1, "split": "train", "loss": 0.5})
    assert [record.message for record in caplog.records] == [
        "wandb failed and no longer follows the run: broken installation"
    ]


def test_a_package_that_is_missing_is_named_with_the_command(tiny_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["tensorboard"]')
    with pytest.raises(InputError, match=r"tensorboard is missing; pip install 'slotssm\[tensorboard\]'"):
        Trainer(config, spec_of(config.data), data, run, "cpu")


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_holds_every_number_once(tiny_run, monkeypatch):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    config, data, run = tiny_run("tiny-oc", *FAST, 'train.trackers=["tensorboard"]')
    killed_after(3, monkeypatch, config, data, run)
    train(config, data, run, resume=True)
    (file,) = run.tensorboard.glob("events.*")
    found = [
        (value.tag, event.step, value.simple_value)
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    expected = logged(run)
    assert len(found) == len(expected)
    for name, step, value in found:
        assert value == pytest.approx(expected[name, step], rel=1e-6)
