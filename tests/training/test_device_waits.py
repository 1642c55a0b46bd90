"""A training step does not wait for the device: nothing in it asks for the value of a tensor."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slotssm.experiments.datasets import spec_of
from slotssm.training.trainer import Trainer

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


class NoValues(TorchDispatchMode):
    """Refuses operators whose result, or its size, depends on values that a GPU has yet to compute."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
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
        ("tiny-bcb", ("model.kind=rim", "model.num_active=2", *SMALL)),
        ("tiny-bcb", ("model.kind=slot-transformer", *SMALL)),
    ],
)
def test_a_step_asks_for_no_values(tiny_run, name, changes):
    config, data, run = tiny_run(name, *changes)
    trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
    with trainer.loader:
        batch = trainer.loader.batch(0)
        trainer._take_step(batch)  # compiles kernels
        with NoValues():
            scalars = trainer._take_step(batch)
    assert trainer.step == 2
    assert torch.isfinite(scalars["loss"])


def test_the_checker_sees_a_value():
    with NoValues(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.zeros(()))


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
