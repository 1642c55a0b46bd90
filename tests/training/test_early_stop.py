"""Training that stops when validation has stopped improving: the rule, and runs that end by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.config import TrainConfig
from slotssm.evaluation.catalog import METRICS
from slotssm.experiments import runs
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.overview.listing import state_of
from slotssm.training import checkpoint
from slotssm.training import trainer as trainer_module
from slotssm.training.best import BestValidation
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

PATIENT = (
    *("train.num_steps=9", "train.checkpoint_every_steps=4", "train.eval_every_steps=1", "train.log_every_steps=1"),
    *("train.keep_best=mse", "train.patience=2", "train.min_improvement=0.1"),
)
FALLING_UNTIL_4 = [1.0, 0.8, 0.5, 0.4, 0.39, 0.38, 0.1, 0.05, 0.01]
"""After step 4 no value is 10 % better until step 7; so with patience 2 the run ends after step 6."""


def stop_step(values, metric, patience, margin):
    """The rule in plain words: the first place where none of the last `patience` values beats the reference before."""
    is_better, reference, waited = METRICS[metric].is_better, None, 0
    for step, value in enumerate(values, 1):
        if reference is None or (is_better(value, reference) and abs(value - reference) > margin * abs(reference)):
            reference, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            return step
    return None


@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.52, 0.9, 1.0]), max_size=12),
    metric=st.sampled_from(["mse", "fg-ari"]),
    patience=st.integers(1, 4),
    margin=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_the_rule_and_the_best_value_are_those_of_a_plain_reading(values, metric, patience, margin):
    best, ended = BestValidation(metric, patience, margin), None
    for step, value in enumerate(values, 1):
        before = best.value
        assert not best.improves({"step": step, "split": "train", metric: -1.0})
        improved = best.improves({"step": step, "split": "val", metric: value})
        assert improved == (before is None or METRICS[metric].is_better(value, before))
        ended = step if best.is_over and ended is None else ended
    assert ended == stop_step(values, metric, patience, margin)
    assert best.value == ((min if METRICS[metric].lower_is_better else max)(values) if values else None)


def test_without_patience_or_metric_nothing_ends():
    for best in (BestValidation("mse"), BestValidation("", 1)):
        for _ in range(50):
            best.improves({"step": 1, "split": "val", "mse": 1.0})
        assert not best.is_over
    with pytest.raises(ValueError, match="patience needs a metric to wait for: set keep_best"):
        TrainConfig(patience=3)


@pytest.mark.parametrize(
    ("name", "assignments"),
    [
        ("tiny-oc", ('train.phases=[{"num_steps": 5, "batch_size": 8, "clip_len": 2}]',)),
        ("tiny-bcb", ("task.curriculum=[[1, 5]]",)),
    ],
)
def test_a_plateau_before_the_last_phase_does_not_end_the_training(tiny_run, monkeypatch, name, assignments):
    monkeypatch.setattr(trainer_module, "validate", lambda *args: {"mse": 1.0})
    config, data, run = tiny_run(name, *PATIENT, "train.num_steps=20", *assignments)
    Trainer(config, spec_of(config.data), data, run, "cpu").train()
    # after the five steps, two more validations without a better value
    assert run.num_steps() == 7


@pytest.fixture
def scripted(monkeypatch):
    """Validations that give the errors of `FALLING_UNTIL_4`, whatever is trained."""

    def validate(task, data, split, most, fitting, processes):
        return {"mse": FALLING_UNTIL_4[trainers[-1].step - 1]}

    trainers = []
    monkeypatch.setattr(trainer_module, "validate", validate)
    return trainers


def train(scripted, made, resume=False):
    config, data, run = made
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    scripted.append(trainer)
    if resume:
        trainer.resume()
    trainer.train()
    return run


def weights(run: RunDirectory, name: str) -> bytes:
    return (run.checkpoints / name / checkpoint.MODEL).read_bytes()


def test_a_run_stops_where_the_rule_says_and_is_complete(scripted, tiny_run):
    run = train(scripted, tiny_run("tiny-oc", *PATIENT))
    assert checkpoint.latest(run.checkpoints).name == "step-00000006"
    assert [line["step"] for line in read_lines(run.metrics) if line["split"] == "val"] == [1, 2, 3, 4, 5, 6]
    assert run.is_complete()
    assert (run.num_steps(), run.config().train.num_steps) == (6, 9)
    state = state_of(run)
    assert (state.name, state.step, state.num_steps) == ("complete", 6, 6)
    # the best checkpoint follows every improvement, however small
    assert checkpoint.step_of(run.checkpoints / "best") == 6
    # up to then it is the run without patience
    longer = train(scripted, tiny_run("tiny-oc", *PATIENT, "train.patience=0", "train.keep_checkpoints=9", folder="b"))
    assert longer.num_steps() == 9
    assert weights(run, "step-00000004") == weights(longer, "step-00000004")
    # resuming it takes no further step, and leaves the record as it was
    before = [path.read_bytes() for path in (run.metrics, run.timing, run.record)]
    train(scripted, (run.config(), run.data(), run), resume=True)
    assert [path.read_bytes() for path in (run.metrics, run.timing, run.record)] == before


def test_the_steps_up_to_an_early_stop_are_timed(scripted, tiny_run):
    run = train(scripted, tiny_run("tiny-oc", *PATIENT, "train.log_every_steps=4"))
    assert [line["step"] for line in read_lines(run.timing)] == [4, 6]


@pytest.mark.parametrize("killed_in", ["save", "stop_early"])
def test_a_run_that_is_killed_as_it_stops_ends_at_the_same_step(scripted, tiny_run, monkeypatch, killed_in):
    whole = train(scripted, tiny_run("tiny-oc", *PATIENT, folder="whole"))
    made = tiny_run("tiny-oc", *PATIENT)
    target = Trainer if killed_in == "save" else RunDirectory
    original = getattr(target, killed_in)

    def killed(self, *args):
        if killed_in == "stop_early" or self.step == 6:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(target, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            train(scripted, made)
    assert not made[2].is_complete()
    run = train(scripted, made, resume=True)
    assert run.is_complete()
    assert run.metrics.read_text() == whole.metrics.read_text()
    assert weights(run, "step-00000006") == weights(whole, "step-00000006")


def test_an_early_stop_can_be_extended_by_as_many_steps_as_asked_for(scripted, tiny_run, monkeypatch):
    run = train(scripted, tiny_run("tiny-oc", *PATIENT))
    monkeypatch.setattr(runs, "_own_data", lambda run, data, processes: data)
    monkeypatch.setattr(trainer_module, "validate", lambda *args: {"mse": 1.0})
    runs.extend_run(run, 4, "cpu", lambda report: None, run.data())
    assert checkpoint.latest(run.checkpoints).name == "step-00000010"
    assert run.is_complete()
    assert (run.num_steps(), run.config().train.patience) == (10, 0)
    (event,) = run.read()["extended"]
    assert (event["from_step"], event["num_steps"]) == (6, 10)
