"""A training step does not wait for the device: nothing in it asks for the value of a tensor."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slotssm.experiments.datasets import spec_of
from slotssm.training.device import numerics
from slotssm.training.trainer import Trainer

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


class NoValues(TorchDispatchMode):
    """Refuses operators whose result, or its size, depends on values that a GPU has yet to compute."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        return function(*args, **(kwargs or {}))


UNREPEATABLE = (
    *("nll_loss2d_forward", "cumsum", "histc", "bincount", "kthvalue", "median", "put_", "_embedding_bag"),
    *("grid_sampler_2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_linear1d_backward"),
    *("reflection_pad2d_backward", "replication_pad2d_backward", "max_unpool2d", "_ctc_loss"),
)
"""Operators that `torch.use_deterministic_algorithms` refuses for floats on CUDA."""


class Repeatable(TorchDispatchMode):
    """Refuses operators that have no deterministic kernel on CUDA."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        is_of_floats = any(isinstance(each, torch.Tensor) and each.is_floating_point() for each in args)
        assert name not in UNREPEATABLE or not is_of_floats, f"{name} cannot be repeated on a GPU"
        return function(*args, **(kwargs or {}))


SMALL = ("model.num_slots=3", "model.slot_dim=16", "model.num_heads=2")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny-oc", ()),
        ("tiny-oc", ("task.canvas=image", "task.slot_contrast=0.1", "task.foreground_weight=2", "train.ema_decay=0.9")),
        ("tiny-oc", ("model.kind=savi", *SMALL)),
        ("tiny-bcb", ("train.accumulation_steps=2", "model.dropout=0.1")),
        ("tiny-bcb", ("task.targets=prefix", "train.precision=bf16")),
        ("tiny-bcb", ("model.time_mixer.kind=mamba2",)),
        ("tiny-bcb", ("model.time_mixer.kind=s5",)),
        ("tiny-bcb", ("model.time_mixer.kind=s4d",)),
        ("tiny-depth", ()),
        ("tiny-snitch", ("task.targets=every",)),
        ("tiny-bcb", ("model.kind=rim", "model.num_active=2", *SMALL)),
        ("tiny-bcb", ("model.kind=slot-transformer", *SMALL)),
        ("tiny-bcb", ("model.kind=slot-rnn", *SMALL)),
    ],
)
def test_a_step_asks_for_no_values_and_can_be_repeated(tiny_run, name, changes):
    config, data, run = tiny_run(name, "train.deterministic=true", *changes)
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    with trainer.loader, numerics(config.train, "cpu"):
        batch = trainer.loader.batch(0)
        trainer._take_step(batch)  # compiles kernels
        with NoValues(), Repeatable():
            scalars = trainer._take_step(batch)
    assert trainer.step == 2
    assert torch.isfinite(scalars["loss"])


def test_classes_of_predicted_pixels_can_be_repeated(tiny_run):
    config, data, run = tiny_run("tiny-balls", "task.loss=ce")
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    with trainer.loader:
        batch = trainer.loader.batch(0)
        expected, _ = trainer.task(batch)
        with numerics(config.train.replace(deterministic=True), "cpu"), Repeatable():
            loss, _ = trainer.task(batch)
            loss.backward()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["tiny-bcb", "tiny-balls", "tiny-snitch", "tiny-depth", "tiny-oc"])
def test_a_step_that_is_not_logged_has_the_same_loss_and_nothing_besides(tiny_run, name):
    config, data, run = tiny_run(name)
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    with trainer.loader, torch.no_grad():
        batch = trainer.loader.batch(0)
        (loss, logged), trainer.task.is_logged = trainer.task(batch), False
        again, left_out = trainer.task(batch)
    assert torch.equal(loss, again)
    assert not left_out
    assert trainer._logs(config.train.num_steps)
    assert bool(logged) == (name not in ("tiny-oc", "tiny-depth"))


def test_the_checker_sees_a_value():
    with NoValues(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.zeros(()))


def test_the_checker_sees_what_cannot_be_repeated():
    logits, classes = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    with Repeatable():
        classes.cumsum(0)
        with pytest.raises(AssertionError, match="cannot be repeated"):
            torch.nn.functional.cross_entropy(logits, classes)


def test_deterministic_kernels_are_on_while_training_only(tiny_run, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    settings = ("train.num_steps=1", "train.eval_every_steps=0")
    config, data, run = tiny_run("tiny-oc", "train.deterministic=true", *settings)
    seen = []

    def on_step(report):
        seen.append(torch.are_deterministic_algorithms_enabled())

    Trainer(config, spec_of(config.data), data, run, "cpu", on_step).train()
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
