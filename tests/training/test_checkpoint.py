"""Checkpoints are complete or absent, strict, and hold no code."""

import pytest
import torch
from own_task import own_task

from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.training import checkpoint

STATE = checkpoint.TrainerState(3, {"exp_avg.x": torch.ones(2)})


@pytest.fixture
def saved(tmp_path):
    config = preset("tiny-oc")
    task = own_task(config)
    return checkpoint.save(tmp_path / "checkpoints", config, task, STATE, keep=2), config, task


def test_round_trip_in_eval_mode(saved):
    folder, config, task = saved
    loaded, found = checkpoint.load_task(folder)
    assert found == config
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


def test_old_ones_go_and_the_newest_stay(saved, tmp_path):
    folder, config, task = saved
    for step in (4, 5, 6):
        checkpoint.save(folder.parent, config, task, checkpoint.TrainerState(step, {}), keep=2)
    assert sorted(path.name for path in folder.parent.glob("step-*")) == ["step-00000005", "step-00000006"]
    assert checkpoint.latest(folder.parent).name == "step-00000006"


def test_a_failed_save_keeps_the_last_good_one(saved, monkeypatch):
    folder, config, task = saved

    def full_disk(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        checkpoint.save(folder.parent, config, task, checkpoint.TrainerState(4, {}), keep=2)
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
    checkpoint.save(folder.parent, config, task, checkpoint.TrainerState(4, {}), keep=2)
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003", "step-00000004", "last"}


def test_a_missing_pointer_falls_back_to_the_newest(saved):
    folder, _, _ = saved
    (folder.parent / "last").write_text("step-99999999\n")
    assert checkpoint.latest(folder.parent) == folder
    (folder.parent / "last").unlink()
    assert checkpoint.latest(folder.parent) == folder
    assert checkpoint.latest(folder.parent / "nowhere") is None


def test_optimizer_state_round_trips_by_parameter_name():
    task = own_task(preset("tiny-oc"))
    frames = torch.randint(0, 255, (2, 3, 16, 16, 3), dtype=torch.uint8)

    def step(target, optimizer):
        optimizer.zero_grad()
        target({"frames": frames})[0].backward()
        optimizer.step()

    ours = torch.optim.AdamW(task.parameters(), lr=1e-2)
    step(task, ours)
    twin = own_task(preset("tiny-oc"))
    twin.load_state_dict(task.state_dict())
    theirs = torch.optim.AdamW(twin.parameters(), lr=1e-2)
    checkpoint.restore_optimizer(theirs, twin, checkpoint.optimizer_tensors(ours, task))
    step(task, ours)
    step(twin, theirs)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), twin.parameters(), strict=True))
