"""Exact resume, interruption, non-finite losses, schedules."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from own_task import own_task
from safetensors.torch import load_file

from slotssm.config import TrainConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.training import checkpoint
from slotssm.training import trainer as trainer_module
from slotssm.training.device import resolve_device
from slotssm.training.optimization import build_optimizer, clip_gradients, learning_rate
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

FAST = ("train.num_steps=8", "train.checkpoint_every_steps=4", "train.eval_every_steps=4", "train.log_every_steps=1")


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    folder = checkpoint.latest(run.checkpoints)
    assert folder is not None
    return load_file(folder / checkpoint.MODEL)


def same(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def trainer_of(config, data, run, device="cpu", on_step=lambda report: None) -> Trainer:
    return Trainer(config, spec_of(config.data), data, run, device, on_step)


PHASES = """train.phases=[
    {"num_steps": 3, "batch_size": 6, "clip_len": 2},
    {"num_steps": 3, "batch_size": 2, "clip_len": 1}
]"""
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
        # the first phase ends after step 3, the second after step 6
        ("tiny-oc", (PHASES, "train.initialization=scaled")),
        # stages end at the steps 3 and 6: one within the first part, one within the second
        ("tiny-bcb", ("task.targets=prefix", "task.curriculum=[[1, 3], [4, 3]]")),
    ],
)
def test_resumed_training_is_bitwise_the_uninterrupted_one(tiny_run, name, changes):
    # dropout makes the loss depend on the random state, which must be restored too
    options = (*FAST, "model.dropout=0.1", *changes)
    config, data, whole = tiny_run(name, *options, folder="whole")
    trainer_of(config, data, whole, "cpu").train()
    config, data, parted = tiny_run(name, *options, folder="parted")

    def stop_at_five(report):
        if report.step == 5 and not report.message:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved step 5 of 8"):
        trainer_of(config, data, parted, "cpu", stop_at_five).train()
    again = trainer_of(config, data, parted, "cpu")
    assert again.resume()
    again.train()
    assert same(weights(whole), weights(parted))
    assert whole.metrics.read_text() == parted.metrics.read_text()


def test_scaled_weights_are_those_of_torch_scaled_and_see_normal_pixels(tiny_run):
    runs = {
        kind: tiny_run("tiny-oc", *FAST, f"train.initialization={kind}", folder=kind) for kind in ("torch", "scaled")
    }
    found = {}
    for kind, (config, data, run) in runs.items():
        trainer = trainer_of(config, data, run, "cpu")
        trainer.initialize()
        found[kind] = trainer.task
    changed = {
        name
        for (name, ours), theirs in zip(found["scaled"].named_parameters(), found["torch"].parameters(), strict=True)
        if not torch.equal(ours, theirs)
    }
    assert {name.split(".")[0] for name in changed} == {"encoder", "model"}
    assert all("reader" in name for name in changed if name.startswith("model"))
    gain = found["scaled"].encoder.cnn[0].weight / found["torch"].encoder.cnn[0].weight
    # the same factor for every weight of a colour channel, the larger the less that channel varies
    torch.testing.assert_close(gain, gain[:1, :, :1, :1].expand_as(gain))
    assert (gain > 6**0.5).all()


def test_a_curriculum_trains_on_the_patches_of_its_stages(tiny_run):
    # without weight decay and with a learning rate of nothing the losses are those of the first weights
    still = (*FAST, "train.eval_every_steps=0", "train.learning_rate=1e-30")
    losses = {}
    for stages in ("[]", "[[1, 3], [4, 3]]", "[[1, 7]]", "[[4, 7]]"):
        config, data, run = tiny_run("tiny-bcb", *still, f"task.curriculum={stages}", folder=f"run{len(losses)}")
        trainer_of(config, data, run, "cpu").train()
        losses[stages] = [line["loss"] for line in read_lines(run.metrics)]
    own, staged, whole, pieces = losses.values()
    assert staged == [*whole[:3], *pieces[3:6], *own[6:]]
    assert all(len({*step}) == 3 for step in zip(own[:7], whole[:7], pieces[:7], strict=True))
    assert own[7] == whole[7] == pieces[7]


def test_lines_beyond_the_checkpoint_are_taken_again(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    trainer_of(config, data, run, "cpu").train()
    expected = run.metrics.read_text()
    # the pointer alone decides nothing
    shutil.rmtree(run.checkpoints / "step-00000008")
    # a kill in the middle of a line
    with run.metrics.open("a") as stream:
        stream.write('{"step": 9, "spl')
    trainer = trainer_of(config, data, run, "cpu")
    assert trainer.resume()
    assert trainer.step == 4
    assert max(line["step"] for line in read_lines(run.metrics)) == 4
    trainer.train()
    assert run.metrics.read_text() == expected


def test_without_a_checkpoint_resuming_starts_at_step_zero(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    run.append(run.metrics, {"step": 3, "split": "train", "loss": 1.0})
    trainer = trainer_of(config, data, run, "cpu")
    assert not trainer.resume()
    assert trainer.step == 0
    assert read_lines(run.metrics) == []


def test_different_seeds_give_different_weights(tiny_run):
    runs = []
    for seed in (0, 1):
        config, data, run = tiny_run("tiny-oc", *FAST, f"seed={seed}", folder=f"seed{seed}")
        trainer_of(config, data, run, "cpu").train()
        runs.append(weights(run))
    assert not same(*runs)


def test_a_non_finite_loss_stops_names_the_step_and_keeps_the_checkpoint(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    trainer = trainer_of(config, data, run, "cpu")

    def poison(report):
        if report.step == 5:
            with torch.no_grad():
                next(trainer.task.parameters()).fill_(math.nan)

    trainer.on_step = poison
    with pytest.raises(SlotSSMError, match="the loss or a gradient was not finite at step 6") as failure:
        trainer.train()
    assert failure.value.exit_code == 1
    assert checkpoint.latest(run.checkpoints).name == "step-00000004"
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    assert all(math.isfinite(line["loss"]) for line in read_lines(run.metrics) if "loss" in line)


def test_a_non_finite_gradient_never_reaches_a_checkpoint(tiny_run, monkeypatch):
    config, data, run = tiny_run("tiny-oc", *FAST, "train.grad_clip_norm=0")
    trainer = trainer_of(config, data, run, "cpu")
    honest = trainer_module.clip_gradients

    def overflow(parameters, max_norm):
        if trainer.step == 7:
            # the last step, which is saved: its loss is finite, its gradient is not
            parameters[0].grad.fill_(math.inf)
        return honest(parameters, max_norm)

    monkeypatch.setattr(trainer_module, "clip_gradients", overflow)
    with pytest.raises(SlotSSMError, match="the loss or a gradient was not finite at step 8"):
        trainer.train()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.task.parameters())
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
def test_clipping_is_torchs_where_torch_can(scale, max_norm):
    values = [[3 * scale, -4 * scale], [12 * scale]]
    ours, torchs = gradients_of(*values), gradients_of(*values)
    norm = clip_gradients(ours, max_norm)
    assert float(norm) == pytest.approx(13 * scale, rel=1e-6)
    if scale == 1e-30:  # whose squares torch loses
        return
    torch.testing.assert_close(norm.float(), torch.nn.utils.clip_grad_norm_(torchs, max_norm), rtol=1e-6, atol=0)
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)


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
    trainer_of(config, data, run, "cpu").train()
    losses = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_validation_is_logged_beside_training(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    trainer_of(config, data, run, "cpu").train()
    validated = {line["step"]: line for line in read_lines(run.metrics) if line["split"] == "val"}
    assert set(validated) == {4, 8}
    assert {"mse", "fg-ari", "miou"} <= set(validated[8])


def test_validation_does_not_change_the_training(tiny_run):
    states = []
    for every in (0, 2):
        config, data, run = tiny_run("tiny-oc", *FAST, f"train.eval_every_steps={every}", folder=f"eval{every}")
        trainer_of(config, data, run, "cpu").train()
        states.append(weights(run))
    assert same(*states)


def test_learning_rate_warms_up_and_decays_to_a_tenth():
    config = TrainConfig(num_steps=110, warmup_steps=10, learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(config, step) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[110] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert learning_rate(config.replace(schedule="constant"), 100) == 2.0


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
    groups = build_optimizer(task, TrainConfig(weight_decay=0.1)).param_groups
    decayed, spared = sorted(groups, key=lambda group: -group["weight_decay"])
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    spared_names = {names[parameter] for parameter in spared["params"]}
    for part in (*dynamics, "time_mixer.D", "cls", "norm.weight", "bias"):
        assert any(name.endswith(part) for name in spared_names), part
    assert all(names[parameter].endswith("weight") for parameter in decayed["params"])


def test_an_absent_device_is_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(InputError, match="`device` nonsense is not available"):
        resolve_device("nonsense")


def test_an_empty_training_split_is_refused(tiny_run, tmp_path):
    from generators.writer import generate

    config, _, run = tiny_run("tiny-oc")
    data = tmp_path / "test-only.h5"
    generate(config.data.replace(num_train=0, num_val=0), data, workers=1)
    with EpisodeFile(data) as episodes:
        assert episodes.splits == ["test"]
    with pytest.raises(InputError, match="has no split 'train'"):
        trainer_of(config, data, run, "cpu")


def test_run_record_says_where_everything_came_from(tiny_run):
    config, data, run = tiny_run("tiny-oc")
    record = json.loads(run.record.read_text())
    assert record["data"] == str(data.resolve())
    assert record["data_sha256"] == "fingerprint"
    assert {"python", "torch", "slotssm"} <= set(record["versions"])
    assert run.config() == config


def test_training_starts_from_the_last_weights_of_another_run(tiny_run):
    config, data, first = tiny_run("tiny-bcb", *FAST, folder="first")
    trainer_of(config, data, first, "cpu").train()
    changed, _, second = tiny_run("tiny-bcb", *FAST, f"train.initial.run={first.path}", folder="second")
    trainer = trainer_of(changed, data, second, "cpu")
    trainer.initialize()
    assert same(trainer.task.state_dict(), weights(first))
    again = trainer_of(changed, data, second, "cpu")
    assert not again.resume()
    assert same(again.task.state_dict(), trainer.task.state_dict())


def test_a_start_that_is_no_run_is_refused(tiny_run, tmp_path):
    config, data, run = tiny_run("tiny-bcb", *FAST, f"train.initial.run={tmp_path / 'nothing'}")
    with pytest.raises(InputError, match=r"nothing is neither a checkpoint nor a run with one"):
        trainer_of(config, data, run, "cpu").initialize()


# --- collapse ---------------------------------------------------------------------------------------------


def messages_of(config, data, run) -> list[str]:
    found = []
    trainer_of(config, data, run, "cpu", lambda report: found.append(report.message)).train()
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
    monkeypatch.setattr(trainer_module, "validate", lambda *arguments, **options: {"mse": mse, "mse-mean-image": 0.1})
    config, data, run = tiny_run("tiny-oc", *FAST)
    assert any("collapse" in message for message in messages_of(config, data, run)) == warned


def test_the_mean_images_error_is_logged_beside_the_models(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST)
    trainer_of(config, data, run, "cpu").train()
    last = [line for line in read_lines(run.metrics) if line["split"] == "val"][-1]
    with EpisodeFile(data) as truth:
        frames = truth.read("val", "frames") / 255
    assert last["mse-mean-image"] == pytest.approx(((frames - frames.mean((0, 1))) ** 2).mean(), rel=1e-9)
    # tasks without a reconstruction have no such floor
    config, data, run = tiny_run("tiny-bcb", *FAST, folder="recall")
    trainer_of(config, data, run, "cpu").train()
    assert "mse-mean-image" not in [line for line in read_lines(run.metrics) if line["split"] == "val"][-1]


# --- switches ---------------------------------------------------------------------------------------------


def trained(tiny_run, *changes, name="tiny-oc", folder="run"):
    config, data, run = tiny_run(name, *FAST, *changes, folder=folder)
    trainer = trainer_of(config, data, run)
    trainer.train()
    return trainer


def close(ours, theirs, rtol) -> None:
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-oc", "tiny-bcb"])
def test_accumulation_changes_only_the_memory(tiny_run, name):
    whole = trained(tiny_run, name=name, folder="whole")
    parted = trained(tiny_run, "train.accumulation_steps=4", name=name, folder="parted")
    close(parted.task, whole.task, 2e-3)
    for ours, theirs in zip(read_lines(parted.run.metrics), read_lines(whole.run.metrics), strict=True):
        if ours["split"] == "train":
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def test_checkpointed_activations_change_only_the_memory(tiny_run):
    kept = trained(tiny_run, "model.dropout=0.1", folder="kept")
    again = trained(tiny_run, "model.dropout=0.1", "train.checkpoint_activations=true", folder="again")
    assert any(getattr(module, "checkpoint_activations", False) for module in again.task.modules())
    close(again.task, kept.task, 1e-4)


def test_compiled_steps_are_asked_for_in_recurrences(tiny_run):
    for is_on in (False, True):
        config, data, run = tiny_run(
            "tiny-bcb", "model.kind=slot-rnn", f"train.compile_steps={str(is_on).lower()}", folder=f"run-{is_on}"
        )
        trainer = Trainer(config, spec_of(config.data), data, run, "cpu")
        asked = [module.compile_steps for module in trainer.task.modules() if hasattr(module, "compile_steps")]
        assert asked
        assert set(asked) == {is_on}


def test_bf16_is_near_and_keeps_weights_in_float32(tiny_run):
    exact = trained(tiny_run, folder="exact")
    mixed = trained(tiny_run, "train.precision=bf16", folder="mixed")
    assert all(parameter.dtype == torch.float32 for parameter in mixed.task.parameters())
    first = [next(line["loss"] for line in read_lines(each.run.metrics)) for each in (exact, mixed)]
    assert first[0] != first[1]
    assert first[1] == pytest.approx(first[0], rel=2e-2)


def test_trainers_with_other_settings_follow_one_another_in_one_process(tiny_run):
    first = trained(tiny_run, folder="first")
    trained(tiny_run, "train.precision=bf16", "train.tf32=true", folder="between")
    again = trained(tiny_run, folder="again")
    assert same(first.task.state_dict(), again.task.state_dict())
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_moving_average_starts_from_the_first_weights(tiny_run):
    """Also if they depend on statistics of the data."""
    config, data, run = tiny_run("tiny-oc", "train.ema_decay=0.9", "task.canvas=color")
    trainer = trainer_of(config, data, run)
    # the median colour of these data is black, as the canvas is at first
    trainer.task.fit_statistics = lambda *_: trainer.task.canvas.start_from(torch.tensor([0.1, 0.2, 0.3]))
    trainer.initialize()
    assert trainer.task.canvas.color.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert same(trainer.average, dict(trainer.task.named_parameters()))


def test_the_moving_average_is_what_is_saved_and_the_weights_go_on(tiny_run):
    plain = trained(tiny_run, folder="plain")
    averaged = trained(tiny_run, "train.ema_decay=0.5", folder="averaged")
    # the average changes nothing of the training
    assert same(averaged.task.state_dict(), plain.task.state_dict())
    assert same(weights(averaged.run), averaged.average)
    assert not same(weights(averaged.run), weights(plain.run))
    # a moving average by hand from the checkpoints of every step
    config, data, run = tiny_run(
        "tiny-oc", *FAST, "train.checkpoint_every_steps=1", "train.keep_checkpoints=9", folder="every"
    )
    every = trainer_of(config, data, run)
    expected = {name: value.detach().clone() for name, value in every.task.named_parameters()}
    every.train()
    for folder in checkpoint.complete_checkpoints(run.checkpoints):
        for name, value in load_file(folder / checkpoint.MODEL).items():
            expected[name] = 0.5 * expected[name] + 0.5 * value
    for name, value in weights(averaged.run).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)


def test_a_run_with_a_moving_average_resumes_bit_by_bit(tiny_run):
    whole = trained(tiny_run, "train.ema_decay=0.9", folder="whole")
    config, data, parted = tiny_run("tiny-oc", *FAST, "train.ema_decay=0.9", folder="parted")

    def stop_at_five(report):
        if report.step == 5 and not report.message:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        trainer_of(config, data, parted, "cpu", stop_at_five).train()
    again = trainer_of(config, data, parted)
    assert again.resume()
    again.train()
    assert same(weights(whole.run), weights(parted))
    assert same(whole.task.state_dict(), again.task.state_dict())


@pytest.mark.slow
def test_compilation_changes_the_losses_by_rounding_alone(tmp_path, environment):
    # in processes of their own, where signatures are not checked while torch traces them
    losses = []
    for value in ("false", "true"):
        settings = (
            "train.num_steps=3",
            "train.log_every_steps=1",
            "train.eval_every_steps=0",
            f"train.compile={value}",
        )
        command = [sys.executable, "-m", "slotssm", "train", "--preset", "tiny-oc", "--out", value]
        command += [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        losses.append([line["loss"] for line in read_lines(tmp_path / value / "metrics.jsonl")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


# --- parts ------------------------------------------------------------------------------------------------


def test_a_frozen_part_stays_and_the_others_learn(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST, 'train.frozen_parts=["encoder"]', "train.weight_decay=0.1")
    trainer = trainer_of(config, data, run)
    before = {name: value.clone() for name, value in trainer.task.state_dict().items()}
    trainer.train()
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


def test_a_part_has_a_learning_rate_of_its_own(tiny_run):
    changes = ("train.schedule=constant", "train.warmup_steps=0", "train.grad_clip_norm=0", "train.num_steps=1")
    config, data, run = tiny_run("tiny-oc", *FAST, *changes, 'train.part_learning_rates={"decoder": 1e-5}')
    trainer = trainer_of(config, data, run)
    before = {name: value.clone() for name, value in trainer.task.state_dict().items()}
    trainer.train()
    # the first step of Adam is as long as the learning rate, whatever the gradient
    for part, rate in (("encoder", config.train.learning_rate), ("decoder", 1e-5)):
        steps = [
            (value - before[name]).abs().max()
            for name, value in trainer.task.state_dict().items()
            if name.startswith(part)
        ]
        assert max(steps) == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('train.frozen_parts=["head"]', "train.frozen_parts names head; the parts of this task are encoder, model"),
        ('train.part_learning_rates={"head": 1}', "train.part_learning_rates names head"),
        ('train.frozen_parts=["encoder", "model", "decoder"]', "freezes every part"),
    ],
)
def test_parts_that_are_not_there_are_refused(tiny_run, change, message):
    config, data, run = tiny_run("tiny-oc", *FAST, change)
    with pytest.raises(InputError, match=message):
        trainer_of(config, data, run)


def test_what_is_taken_from_another_run_is_said(tiny_run):
    first = trained(tiny_run, folder="first")
    parts = ("train.initial.run=" + str(first.run.path), 'train.initial.parts=["encoder", "model"]')
    config, data, run = tiny_run("tiny-oc", *FAST, "seed=4", *parts, folder="second")
    told = []
    trainer = trainer_of(config, data, run, "cpu", lambda report: told.append(report.message))
    trainer.initialize()
    assert told == [
        f"loaded encoder, model from {first.run.path}/checkpoints/step-00000008; randomly initialised: decoder"
    ]
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, first.task.state_dict()[name]) == (not name.startswith("decoder.")), name


# --- what must not be lost or followed --------------------------------------------------------------------


def test_weights_that_exploded_never_become_a_checkpoint(tiny_run):
    config, data, run = tiny_run("tiny-oc", *FAST, "train.eval_every_steps=0")
    trainer = trainer_of(config, data, run)

    def explode(report):
        if report.step == 8 and not report.message:
            # finite, but no loss can be computed with them; the step before was fine
            with torch.no_grad():
                for parameter in trainer.task.decoder.parameters():
                    parameter.fill_(1e30)

    trainer.on_step = explode
    with pytest.raises(SlotSSMError, match=r"training diverged by step 8: .*the last checkpoint is kept"):
        trainer.train()
    assert checkpoint.latest(run.checkpoints).name == "step-00000004"


def test_a_step_that_is_not_finite_changes_nothing_and_is_seen_at_the_next_log(tiny_run, monkeypatch):
    changes = ("train.log_every_steps=4", "train.checkpoint_every_steps=100", "train.eval_every_steps=0")
    config, data, run = tiny_run("tiny-oc", *FAST, *changes)
    trainer = trainer_of(config, data, run)
    honest, seen = trainer_module.clip_gradients, {}

    def overflow(parameters, max_norm):
        seen[trainer.step] = [parameter.detach().clone() for parameter in parameters]
        if trainer.step == 1:
            parameters[0].grad.fill_(math.nan)
        return honest(parameters, max_norm)

    monkeypatch.setattr(trainer_module, "clip_gradients", overflow)
    with pytest.raises(SlotSSMError, match="not finite at step 2"):
        trainer.train()
    assert trainer.step == 4
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[2], seen[3], strict=True))


def test_variables_of_launchers_and_schedulers_change_nothing(tiny_run, monkeypatch):
    plain = trained(tiny_run, folder="plain")
    for name, value in {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_USE_FSDP": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "WORLD_SIZE": "4",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_RANK": "1",
        "PMI_SIZE": "4",
        "PMI_RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert same(trained(tiny_run, folder="again").task.state_dict(), plain.task.state_dict())


def test_one_of_several_processes_of_a_launcher_is_refused(tiny_run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="done by one process, but the launcher started 2"):
        trained(tiny_run)
