"""A stream of any length: the belief of every step is that of the whole video, and no step costs more."""

from itertools import pairwise

import pytest
import torch
from own_task import own_task

from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.matched import SNITCH_MODELS, with_model
from slotssm.tasks.task import as_pixels

FRAMES, SIZE = 24, 24
STATE_SPACE = tuple(name for name in SNITCH_MODELS if name != "slot-transformer")


@pytest.fixture(autouse=True)
def _doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def task_of(model: str):
    base = preset("tiny-snitch")
    return own_task(with_model(base.replace(task=base.task.replace(num_eval_frames=0)), model)).eval()


def video(num_frames: int = FRAMES) -> torch.Tensor:
    blocks = torch.randint(256, (2, num_frames, 3, 3, 3), dtype=torch.uint8)
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)


def stepped(task, frames):
    """Logits and state after every step of the sequence model."""
    state = None
    for t in range(frames.shape[1]):
        tokens = task.encoder(as_pixels(frames[:, t : t + 1]))[:, 0]
        output = task.model.step(tokens, state)
        state = output.state
        yield task.head(output.slots[:, 0]), state


def num_numbers(state) -> int:
    return sum(tensor.numel() for layer in state.layers for tensor in layer)


@torch.no_grad()
@pytest.mark.parametrize("model", SNITCH_MODELS)
def test_the_belief_of_every_step_is_that_of_the_whole_video(model):
    task, frames = task_of(model), video()
    whole = task.predict(frames)["logits"]
    for t, (logits, state) in enumerate(stepped(task, frames)):
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-9, atol=1e-9)
        assert state.num_steps == t + 1


@torch.no_grad()
@pytest.mark.parametrize("model", SNITCH_MODELS)
def test_a_belief_depends_on_no_later_frame(model):
    task, frames = task_of(model), video()
    other = frames.clone()
    other[:, 15:] = video(FRAMES - 15)
    ours, theirs = task.predict(frames)["logits"], task.predict(other)["logits"]
    torch.testing.assert_close(ours[:, :15], theirs[:, :15], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(ours[:, 15:], theirs[:, 15:])


@torch.no_grad()
@pytest.mark.parametrize("model", STATE_SPACE)
def test_the_state_has_one_size_however_long_the_stream(model):
    task = task_of(model)
    shapes = {tuple(tuple(t.shape for t in layer) for layer in state.layers) for _, state in stepped(task, video(60))}
    assert len(shapes) == 1


@torch.no_grad()
def test_the_transformer_remembers_every_step_and_grows_by_the_same_each_time():
    sizes = [num_numbers(state) for _, state in stepped(task_of("slot-transformer"), video())]
    steps = {later - earlier for earlier, later in pairwise(sizes)}
    assert len(steps) == 1
    assert steps.pop() == sizes[0] > 0
