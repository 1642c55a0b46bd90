"""`slots_read` of predict and recall: given when asked for, and without effect on anything else."""

from unittest.mock import patch

import pytest
import torch
from own_task import own_task

from slotssm.documents import override
from slotssm.experiments.presets import preset
from slotssm.layers import PieceDecoder
from slotssm.tasks import Task

MODELS = ("slotssm", "slot-transformer", "slot-rnn", "rim", "split-ssm", "oc-slotssm")
RUNS = ("tiny-balls", "tiny-bcb")


def task_of(run: str, model: str = "slotssm") -> Task:
    fields = {"kind": model, "slot_dim": 16, "num_heads": 2, "num_slots": 3}
    fields |= {"num_active": 2} if model == "rim" else {}
    torch.manual_seed(0)
    return own_task(override(preset(run), {"model": fields}, "test")).eval()


def frames_of(run: str) -> torch.Tensor:
    recipe = preset(run).data.recipe
    shape = 2, recipe.num_frames, recipe.size_px, recipe.size_px, 1
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, shape, generator=generator).mul(255).to(torch.uint8).expand(-1, -1, -1, -1, 3)


@torch.no_grad()
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("model", MODELS)
def test_asking_adds_the_map_and_changes_nothing(run, model):
    task, frames = task_of(run, model), frames_of(run)
    plain = task.predict_episode(frames)
    assert set(plain) == task.outputs
    with task.requesting({"slots_read", "frames"}):
        asked = task.predict_episode(frames)
    assert set(asked) == task.outputs | {"slots_read"} == task.outputs | task.on_request
    for name, value in plain.items():
        torch.testing.assert_close(asked[name], value, rtol=0, atol=0)
    rows, columns = task.decoder.grid
    assert asked["slots_read"].shape == (2, asked["frames"].shape[1], 3, rows, columns)
    torch.testing.assert_close(asked["slots_read"].sum(2), torch.ones(2, asked["frames"].shape[1], rows, columns))
    assert set(task.predict_episode(frames)) == task.outputs


@torch.no_grad()
@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_computed_unless_asked(run):
    task, frames = task_of(run), frames_of(run)
    with patch.object(PieceDecoder, "slots_read", side_effect=AssertionError("computed")):
        task.predict_episode(frames)
        with task.requesting(()):
            task.predict(frames)
        with task.requesting({"slots_read"}), pytest.raises(AssertionError, match="computed"):
            task.predict(frames)


@torch.no_grad()
def test_the_map_belongs_to_the_frame_that_is_predicted():
    task, frames = task_of("tiny-balls"), frames_of("tiny-balls")
    with task.requesting({"slots_read"}):
        outputs = task.roll_out(frames[:, :4], 3)
        steps = task.predict(frames[:, :4])
    for t in range(3):
        torch.testing.assert_close(outputs["slots_read"][:, t], task.decoder.slots_read(outputs["slots"][:, t]))
    torch.testing.assert_close(outputs["slots_read"][:, 0], steps["slots_read"][:, -1], rtol=1e-4, atol=1e-5)


def test_tasks_without_a_transformer_decoder_have_no_such_map():
    for run in ("tiny-oc", "tiny-depth", "tiny-snitch"):
        task = own_task(preset(run))
        assert not task.on_request
        with task.requesting({"slots_read"}):
            assert task.requested == frozenset()
