"""Checkpoints are complete or absent, strict, and hold no code."""

import json
import os

import pytest
import torch
from own_task import own_task

from slotssm import files
from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.training import checkpoint

STATE = checkpoint.TrainerState(3, {"exp_avg.x": torch.ones(2)}, {})


def save(folder, config, task, state=STATE):
    return checkpoint.save(folder, checkpoint.Description(config, spec_of(config.data)), task, state, {}, keep=2)


def at_step(step):
    return checkpoint.TrainerState(step, {}, {})


@pytest.fixture
def saved(tmp_path):
    config = preset("tiny-oc")
    task = own_task(config)
    return save(tmp_path / "checkpoints", config, task), config, task


def test_round_trip_in_eval_mode(saved):
    folder, config, task = saved
    loaded, found = checkpoint.load_task(folder)
    assert (found.config, found.spec) == (config, spec_of(config.data))
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(task.state_dict().values(), loaded.state_dict().values(), strict=True))
    state = checkpoint.load_trainer(folder)
    assert state.step == 3
    assert torch.equal(state.optimizer["exp_avg.x"], torch.ones(2))


def test_layout_and_nothing_pickled(saved):
    folder, _, _ = saved
    assert folder.name == "step-00000003"
    names = {"model.safetensors", "config.json", "trainer.safetensors", "trainer.json"}
    assert {file.name for file in folder.iterdir()} == names
    assert (folder.parent / "last").read_text() == "step-00000003\n"
    assert not any(file.read_bytes()[:2] == b"\x80\x04" for file in folder.iterdir())


def test_the_pointer_of_a_run_stands_for_its_newest_checkpoint(saved):
    folder, _, _ = saved
    for path in (folder, folder.parent / "last", folder.parent.parent):
        assert checkpoint.folder_of(path) == folder
    with pytest.raises(InputError, match="neither a checkpoint nor a run with one"):
        checkpoint.folder_of(folder.parent)


def test_old_ones_go_and_the_newest_stay(saved, tmp_path):
    folder, config, task = saved
    for step in (4, 5, 6):
        save(folder.parent, config, task, at_step(step))
    assert sorted(path.name for path in folder.parent.glob("step-*")) == ["step-00000005", "step-00000006"]
    assert checkpoint.latest(folder.parent).name == "step-00000006"


@pytest.mark.skipif(os.name != "posix", reason="permissions of other systems")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_who_may_read_weights_is_what_the_umask_says(saved, mask):
    """A group shares checkpoints on a cluster."""
    folder, config, task = saved
    before = os.umask(mask)
    try:
        save(folder.parent, config, task, at_step(4))
    finally:
        os.umask(before)
    files = list(checkpoint.latest(folder.parent).iterdir())
    assert len(files) == 4
    assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~mask}


def test_a_failed_save_keeps_the_last_good_one(saved, monkeypatch):
    folder, config, task = saved

    def full_disk(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        save(folder.parent, config, task, at_step(4))
    assert checkpoint.latest(folder.parent) == folder
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "last"}


def test_another_architecture_is_refused_with_the_first_difference(saved):
    folder, config, _ = saved
    wider = own_task(override(config, parse_assignments(["model.slot_dim=32"]), "test"))
    with pytest.raises(InputError, match=r"another architecture: .* has shape .*, expected"):
        checkpoint.load_weights(wider, folder)
    deeper = own_task(override(config, parse_assignments(["model.num_layers=3"]), "test"))
    with pytest.raises(InputError, match=r"another architecture: .* is missing"):
        checkpoint.load_weights(deeper, folder)


@pytest.mark.parametrize("cut", [0, 100, -10])
def test_a_damaged_file_is_refused(saved, cut):
    folder, _, _ = saved
    file = folder / checkpoint.MODEL
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        checkpoint.load_task(folder)


def test_leftovers_of_a_killed_save_are_cleared(saved):
    folder, config, task = saved
    (folder.parent / ".step-00000009.77.partial").mkdir()
    save(folder.parent, config, task, at_step(4))
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003", "step-00000004", "last"}


@pytest.mark.parametrize("pointer", ["step-99999999\n", "step-00000002\n", "", "../..", None])
def test_the_newest_complete_checkpoint_counts_whatever_the_pointer_says(saved, pointer):
    folder, config, task = saved
    save(folder.parent, config, task, at_step(2))
    (folder.parent / "step-none").mkdir()
    (folder.parent / "last").unlink()
    if pointer is not None:
        (folder.parent / "last").write_text(pointer)
    assert checkpoint.latest(folder.parent) == folder
    assert checkpoint.latest(folder.parent / "nowhere") is None


def test_optimizer_state_round_trips_by_parameter_name(tmp_path):
    task = own_task(preset("tiny-oc"))
    frames = torch.randint(0, 255, (2, 3, 16, 16, 3), dtype=torch.uint8)

    def step(target, optimizer):
        optimizer.zero_grad()
        target({"frames": frames})[0].backward()
        optimizer.step()

    ours = torch.optim.AdamW(task.parameters(), lr=1e-2)
    step(task, ours)
    twin = own_task(preset("tiny-oc"))
    theirs = torch.optim.AdamW(twin.parameters(), lr=1e-2)
    state = checkpoint.trainer_state(1, task, ours, {})
    folder = save(tmp_path, preset("tiny-oc"), task, state)
    checkpoint.restore(twin, theirs, {}, checkpoint.load_trainer(folder), folder)
    step(task, ours)
    step(twin, theirs)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), twin.parameters(), strict=True))


# --- parts ------------------------------------------------------------------------------------------------


def test_parts_are_taken_and_the_others_start_afresh(saved):
    folder, config, task = saved
    torch.manual_seed(9)
    other = own_task(override(config, parse_assignments(["task.decoder_channels=[8, 8]"]), "test"))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    message = checkpoint.load_parts(other, folder, ("encoder", "model"))
    assert message == f"loaded encoder, model from {folder}; randomly initialised: decoder"
    for name, value in other.state_dict().items():
        expected = before[name] if name.startswith("decoder.") else task.state_dict()[name]
        assert torch.equal(value, expected)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("head",), "names head; the parts of this task are encoder, model, decoder"),
        (("decoder",), "another architecture: decoder"),
        ((), "another architecture"),
    ],
)
def test_parts_that_do_not_fit_are_refused(saved, parts, message):
    folder, config, _ = saved
    other = own_task(override(config, parse_assignments(["task.decoder_channels=[8, 8]"]), "test"))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(InputError, match=message):
        checkpoint.load_parts(other, folder, parts)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_part_that_the_checkpoint_lacks_is_named(saved, tmp_path):
    folder, config, _ = saved
    task = own_task(config)
    task.head = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"parts names head; .* has decoder, encoder, model"):
        checkpoint.load_parts(task, folder, ("head",))


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "3"}', '{"step": -1}', "nonsense", "[" * 100_000])
def test_a_damaged_state_of_the_trainer_is_refused(saved, content):
    folder, _, _ = saved
    (folder / checkpoint.TRAINER_STATE).write_text(content)
    with pytest.raises(InputError, match=r"trainer\.json"):
        checkpoint.load_trainer(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": 3, "data_spec": {}}', '{"config": {}}', "nonsense"])
def test_a_damaged_description_is_refused(saved, content):
    folder, _, _ = saved
    (folder / checkpoint.CONFIG).write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        checkpoint.load_task(folder)


def test_a_best_checkpoint_is_there_again_after_a_kill_while_it_was_replaced(saved):
    folder, config, task = saved
    description = checkpoint.Description(config, spec_of(config.data))
    checkpoint.save_best(folder.parent, description, task, {}, {"step": 3})
    best = folder.parent / checkpoint.BEST
    # as a process leaves it that is killed between moving the old one aside and the new one into its place
    aside = files._temporary_name(best, "old").replace(f".{os.getpid()}-", ".99999999-")
    best.rename(best.with_name(aside))
    assert checkpoint.chosen_checkpoint(folder.parent, "best") == best
    assert checkpoint.step_of(best) == 3


@pytest.mark.parametrize("step", [2, 99, True])
def test_a_step_other_than_the_folder_s_is_refused(saved, step):
    folder, _, _ = saved
    (folder / checkpoint.TRAINER_STATE).write_text(json.dumps({"step": step}))
    with pytest.raises(InputError, match=r"trainer\.json is damaged: step is not that of the folder's name"):
        checkpoint.load_trainer(folder)


def test_a_description_of_a_far_larger_model_takes_no_memory(saved):
    folder, _, _ = saved
    document = json.loads((folder / checkpoint.CONFIG).read_text())
    document["config"]["model"]["num_slots"] = 10**12
    (folder / checkpoint.CONFIG).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"another architecture: .* has shape .*, expected \(1000000000000, "):
        checkpoint.load_task(folder)


def _drop(start):
    return lambda state, name: {key: value for key, value in state.items() if not key.startswith(start)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda state, name: {key: value for key, value in state.items() if key != f"exp_avg_sq.{name}"},
        _drop("step."),
        _drop("exp_avg."),
        lambda state, name: {key.replace("exp_avg_sq", "moment"): value for key, value in state.items()},
        lambda state, name: state | {f"other.{name}": state[f"exp_avg.{name}"]},
        lambda state, name: state | {f"exp_avg.{name}": state[f"exp_avg.{name}"].int()},
        lambda state, name: state | {f"exp_avg.{name}": state[f"exp_avg.{name}"][None]},
        lambda state, name: state | {f"step.{name}": torch.zeros(3)},
    ],
)
def test_a_damaged_state_of_the_optimiser_is_refused(saved, damage):
    folder, _, task = saved
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    whole = checkpoint.trainer_state(3, task, optimizer, {})
    checkpoint.restore(task, torch.optim.AdamW(task.parameters(), fused=True), {}, whole, folder)
    name = next(name for name, _ in task.named_parameters())
    state = checkpoint.TrainerState(3, damage(whole.optimizer, name), {})
    with pytest.raises(InputError, match=r"trainer\.safetensors is damaged: "):
        checkpoint.restore(task, torch.optim.AdamW(task.parameters(), fused=True), {}, state, folder)


@pytest.mark.parametrize("name", ["exp_avg.nothing", "nonsense", "exp_avg."])
def test_a_state_of_an_unknown_parameter_is_refused(saved, name):
    folder, _, task = saved
    state = checkpoint.TrainerState(3, {name: torch.ones(2)}, {})
    with pytest.raises(InputError, match=r"trainer\.safetensors is damaged"):
        checkpoint.restore(task, torch.optim.AdamW(task.parameters()), {}, state, folder)
