"""Exact resume, interruption, non-finite losses, schedules."""

import json
import math
import os
import signal
from itertools import pairwise

import pytest
import torch
from own_task import own_task
from safetensors.torch import load_file

from slotssm.config import TrainConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.experiments.presets import preset
from slotssm.training import checkpoint, trainer
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer, build_optimizer, clip_gradients, learning_rate, resolve_device

FAST = ("train.num_steps=8", "train.checkpoint_every_steps=4", "train.eval_every_steps=4", "train.log_every_steps=1")


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    folder = checkpoint.latest(run.checkpoints)
    assert folder is not None
    return load_file(folder / checkpoint.MODEL)


def same(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


SMALL = ("model.num_slots=3", "model.slot_dim=16", "model.num_heads=2", "model.num_encoder_layers=1")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny-oc", ("model.time_mixer.kind=mamba",)),
        ("tiny-bcb", ("model.time_mixer.kind=mamba",)),
        ("tiny-bcb", ("model.time_mixer.kind=mamba2",)),
        ("tiny-oc", ("model.time_mixer.kind=s4d",)),
        ("tiny-bcb", ("model.time_mixer.kind=s5",)),
        ("tiny-bcb", ("model.kind=slot-transformer", *SMALL)),
        ("tiny-bcb", ("model.kind=slot-rnn", *SMALL)),
        ("tiny-bcb", ("model.kind=rim", "model.num_active=2", *SMALL)),
        # stages end at the steps 3 and 6: one within the first part, one within the second
        ("tiny-bcb", ("task.targets=prefix", "task.curriculum=[[1, 3], [4, 3]]")),
    ],
)
def test_resumed_training_is_bitwise_the_uninterrupted_one(tiny_run, name, changes):
    # dropout makes the loss depend on the random state, which must be restored too
    options = (*FAST, "model.dropout=0.1", *changes)
    config, data, whole = tiny_run(name, *options, folder="whole")
    Trainer(config, data, whole, "cpu").train()
    config, data, parted = tiny_run(name, *options, folder="parted")

    def stop_at_five(report):
        if report.step == 5 and not report.message:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved step 5 of 8"):
        Trainer(config, data, parted, "cpu", stop_at_five).train()
    again = Trainer(config, data, parted, "cpu")
    assert again.resume()
    again.train()
    assert same(weights(whole), weights(parted))
    assert whole.metrics.read_text() == parted.metrics.read_text()


def test_a_curriculum_trains_on_the_patches_of_its_stages(tiny_run):
    # without weight decay and with a learning rate of nothing the losses are those of the first weights
    still = (*FAST, "train.eval_every_steps=0", "train.learning_rate=1e-30")
    losses = {}
    for stages in ("[]", "[[1, 3], [4, 3]]", "[[1, 7]]", "[[4, 7]]"):
        config, data, run = tiny_run("tiny-bcb", *still, f"task.curriculum={stages}", folder=f"run{len(losses)}")
        Trainer(config, data, run, "cpu").train()
        losses[stages] = [line["loss"] for line in read_lines(run.metrics)]
    own, staged, whole, pieces = losses.values()
    assert staged == [*whole[:3], *pieces[3:6], *own[6:]]
    assert all(len({*step}) == 3 for step in zip(own[:7], whole[:7], pieces[:7], strict=True))
    assert own[7] == whole[7] == pieces[7]


def test_lines_beyond_the_checkpoint_are_taken_again(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    Trainer(config, data, run, "cpu").train()
    expected = run.metrics.read_text()
    (run.checkpoints / "last").write_text("step-00000004\n")
    # a kill in the middle of a line
    with run.metrics.open("a") as stream:
        stream.write('{"step": 9, "spl')
    trainer = Trainer(config, data, run, "cpu")
    assert trainer.resume()
    assert trainer.step == 4
    assert max(line["step"] for line in read_lines(run.metrics)) == 4
    trainer.train()
    assert run.metrics.read_text() == expected


def test_without_a_checkpoint_resuming_starts_at_step_zero(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    run.append(run.metrics, {"step": 3, "split": "train", "loss": 1.0})
    trainer = Trainer(config, data, run, "cpu")
    assert not trainer.resume()
    assert trainer.step == 0
    assert read_lines(run.metrics) == []


def test_different_seeds_give_different_weights(tiny_run):
    runs = []
    for seed in (0, 1):
        config, data, run = tiny_run("tiny-oc", *FAST, f"seed={seed}", folder=f"seed{seed}")
        Trainer(config, data, run, "cpu").train()
        runs.append(weights(run))
    assert not same(*runs)


def test_a_non_finite_loss_stops_names_the_step_and_keeps_the_checkpoint(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    trainer = Trainer(config, data, run, "cpu")

    def poison(report):
        if report.step == 5:
            with torch.no_grad():
                next(trainer.task.parameters()).fill_(math.nan)

    trainer.on_step = poison
    with pytest.raises(SlotSSMError, match="nan at step 6") as failure:
        trainer.train()
    assert failure.value.exit_code == 1
    assert checkpoint.latest(run.checkpoints).name == "step-00000004"
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    assert all(math.isfinite(line["loss"]) for line in read_lines(run.metrics) if "loss" in line)


def test_a_non_finite_gradient_never_reaches_a_checkpoint(tiny_run, monkeypatch):
    config, data, run = tiny_run("tiny-oc", *FAST, "train.grad_clip_norm=0")
    trainer = Trainer(config, data, run, "cpu")
    honest = trainer.accelerator.backward

    def overflow(loss):
        honest(loss)
        if trainer.step == 7:
            # the last step, which is saved: its loss is finite, its gradient is not
            next(trainer.task.parameters()).grad.fill_(math.inf)

    monkeypatch.setattr(trainer.accelerator, "backward", overflow)
    with pytest.raises(SlotSSMError, match="gradient's norm became inf at step 8"):
        trainer.train()
    assert checkpoint.latest(run.checkpoints).name == "step-00000004"
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def gradients_of(*values):
    """Parameters whose gradients are float32 vectors of these values."""
    parameters = [torch.nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e18])
@pytest.mark.parametrize("max_norm", [1.0, math.inf])
def test_clipping_is_torchs_bit_by_bit_where_torch_can(scale, max_norm):
    values = [[3 * scale, -4 * scale], [12 * scale]]
    ours, torchs = gradients_of(*values), gradients_of(*values)
    norm = clip_gradients(ours, max_norm)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(torchs, max_norm))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, torchs, strict=True))


def test_an_exploded_but_finite_gradient_is_clipped_to_its_direction():
    values = [[3e30, -4e30], [12e30]]
    assert torch.isinf(torch.nn.utils.clip_grad_norm_(gradients_of(*values), 1.0))  # what torch makes of it
    parameters = gradients_of(*values)
    assert float(clip_gradients(parameters, 1.0)) == pytest.approx(13e30)
    clipped = torch.cat([parameter.grad for parameter in parameters])
    torch.testing.assert_close(clipped, torch.tensor([3.0, -4.0, 12.0]) / 13)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_the_norm_of_a_gradient_that_is_not_finite_is_not_finite(value):
    assert not torch.isfinite(clip_gradients(gradients_of([1.0, value], [2.0]), 1.0))


def test_training_lowers_the_loss(tiny_run):
    config, data, run = tiny_run("tiny-bcb", "train.num_steps=40", "train.log_every_steps=1")
    Trainer(config, data, run, "cpu").train()
    losses = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_validation_is_logged_beside_training(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    Trainer(config, data, run, "cpu").train()
    validated = {line["step"]: line for line in read_lines(run.metrics) if line["split"] == "val"}
    assert set(validated) == {4, 8}
    assert {"mse", "fg-ari", "miou"} <= set(validated[8])


def test_validation_does_not_change_the_training(tiny_run):
    states = []
    for every in (0, 2):
        config, data, run = tiny_run("tiny-oc", *FAST, f"train.eval_every_steps={every}", folder=f"eval{every}")
        Trainer(config, data, run, "cpu").train()
        states.append(weights(run))
    assert same(*states)


def test_learning_rate_warms_up_and_decays_to_a_tenth():
    config = TrainConfig(num_steps=110, warmup_steps=10, learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(config, step) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[110] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert learning_rate(config.model_copy(update={"schedule": "constant"}), 100) == 2.0


@pytest.mark.parametrize(
    ("mixer", "dynamics"),
    [
        ("mamba", ("A_log", "dt_proj.bias")),
        ("mamba2", ("A_log", "dt_bias", "time_mixer.norm.weight")),
        ("s4d", ("log_dt", "log_A_real", "A_imag", "time_mixer.C")),
        ("s5", ("Lambda_re", "Lambda_im", "time_mixer.B", "time_mixer.C", "log_step")),
    ],
)
def test_weight_decay_spares_biases_norms_embeddings_and_the_state_space(mixer, dynamics):
    task = own_task(override(preset("tiny-bcb"), {"model": {"time_mixer": {"kind": mixer}}}, "test"))
    names = {parameter: name for name, parameter in task.named_parameters()}
    decayed, spared = build_optimizer(task, TrainConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    spared_names = {names[parameter] for parameter in spared["params"]}
    for part in (*dynamics, "time_mixer.D", "cls", "norm.weight", "bias"):
        assert any(name.endswith(part) for name in spared_names), part
    assert all(names[parameter].endswith("weight") for parameter in decayed["params"])


def test_an_absent_device_is_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(InputError, match="--device nonsense is not available"):
        resolve_device("nonsense")


def test_an_empty_training_split_is_refused(tiny_run, tmp_path):
    from generators.writer import generate

    config, _, run = tiny_run("tiny-oc")
    data = tmp_path / "test-only.h5"
    generate(config.data.model_copy(update={"num_train": 0, "num_val": 0}), data, workers=1)
    with EpisodeFile(data) as episodes:
        assert episodes.splits == ["test"]
    with pytest.raises(InputError, match="has no split 'train'"):
        Trainer(config, data, run, "cpu")


def test_run_record_says_where_everything_came_from(tiny_run):
    config, data, run = tiny_run("tiny-oc")
    record = json.loads(run.record.read_text())
    assert record["data"] == str(data.resolve())
    assert record["data_sha256"] == "fingerprint"
    assert {"python", "torch", "slotssm"} <= set(record["versions"])
    assert run.config() == config


def test_training_starts_from_the_last_weights_of_another_run(tiny_run):
    config, data, first = tiny_run("tiny-bcb", *FAST, folder="first")
    Trainer(config, data, first, "cpu").train()
    changed, _, second = tiny_run("tiny-bcb", *FAST, f"train.initial_run={first.path}", folder="second")
    trainer = Trainer(changed, data, second, "cpu")
    trainer.load_initial_weights()
    assert same(trainer.task.state_dict(), weights(first))
    again = Trainer(changed, data, second, "cpu")
    assert not again.resume()
    assert same(again.task.state_dict(), trainer.task.state_dict())


def test_a_start_that_is_no_run_is_refused(tiny_run, tmp_path):
    config, data, run = tiny_run("tiny-bcb", *FAST, f"train.initial_run={tmp_path / 'nothing'}")
    with pytest.raises(InputError, match=r"train.initial_run .*nothing is no run with a checkpoint"):
        Trainer(config, data, run, "cpu").load_initial_weights()


# --- collapse ---------------------------------------------------------------------------------------------


def messages_of(config, data, run) -> list[str]:
    found = []
    Trainer(config, data, run, "cpu", lambda report: found.append(report.message)).train()
    return [message for message in found if message]


def test_a_model_that_paints_the_mean_image_is_warned_of(tiny_run):
    # nothing is learned at this rate
    config, data, run = tiny_run("tiny-oc", *FAST, "train.num_steps=16", "train.learning_rate=1e-9")
    warnings = [message for message in messages_of(config, data, run) if message.startswith("warning: collapse?")]
    # once, at the first validation from a quarter of the steps on
    assert len(warnings) == 1
    assert "mean image" in warnings[0]
    assert "after 4 of 16 steps" in warnings[0]


@pytest.mark.parametrize(("mse", "warned"), [(0.0899, False), (0.0901, True)])
def test_the_warning_comes_above_nine_tenths_of_the_mean_images_error(tiny_run, monkeypatch, mse, warned):
    monkeypatch.setattr(trainer, "validate", lambda *arguments: {"mse": mse, "mse-mean-image": 0.1})
    config, data, run = tiny_run("tiny-oc", *FAST)
    assert any("collapse" in message for message in messages_of(config, data, run)) == warned


def test_the_mean_images_error_is_logged_beside_the_models(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    Trainer(config, data, run, "cpu").train()
    last = [line for line in read_lines(run.metrics) if line["split"] == "val"][-1]
    with EpisodeFile(data) as truth:
        frames = truth.read("val", "frames") / 255
    assert last["mse-mean-image"] == pytest.approx(((frames - frames.mean((0, 1))) ** 2).mean(), rel=1e-9)
    # tasks without a reconstruction have no such floor
    config, data, run = tiny_run("tiny-bcb", *FAST, folder="recall")
    Trainer(config, data, run, "cpu").train()
    assert "mse-mean-image" not in [line for line in read_lines(run.metrics) if line["split"] == "val"][-1]
