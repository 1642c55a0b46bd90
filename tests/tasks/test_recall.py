import pytest
import torch
import torch.nn.functional as F

from slotssm.config import PAINTS
from slotssm.errors import InputError
from slotssm.presets import preset
from slotssm.tasks import Recall, build_task

PALETTE = [(0, 0, 0), *list(PAINTS.values())[:6]]


@pytest.fixture
def task() -> Recall:
    return build_task(preset("tiny-bcb")).eval()


def random_episodes(num: int, frames: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 frames in the colours of the palette, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 7, (num, frames, 4, 4), generator=generator)
    classes = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.tensor(PALETTE, dtype=torch.uint8)[classes], classes


def logits_of(task: Recall, frames: torch.Tensor) -> torch.Tensor:
    """Class scores of the target, put together from the parts of the task."""
    tokens = task.tokenizer(frames[:, :-1].permute(0, 1, 4, 2, 3) / 255)
    return task.decoder(task.model(tokens).slots[:, -1])


@torch.no_grad()
def test_loss_is_the_cross_entropy_of_the_target(task):
    frames, classes = random_episodes(3)
    loss, extra = task({"frames": frames})
    log_shares = logits_of(task, frames).log_softmax(1)
    picked = log_shares.gather(1, classes[:, -1:])
    torch.testing.assert_close(loss, -picked.mean())
    balls = classes[:, -1] > 0
    right = (log_shares.argmax(1) == classes[:, -1])[balls].double().mean()
    (value,) = extra.values()
    torch.testing.assert_close(value.double(), right)


@torch.no_grad()
def test_accuracy_of_a_target_without_balls_is_finite(task):
    _, extra = task({"frames": torch.zeros(2, 6, 16, 16, 3, dtype=torch.uint8)})
    assert list(extra.values()) == [0]


@torch.no_grad()
def test_prediction_renders_the_most_likely_class(task):
    frames, _ = random_episodes(3)
    prediction = task.predict(frames[:, :-1])
    rendered = torch.tensor(PALETTE)[logits_of(task, frames).argmax(1)] / 255
    torch.testing.assert_close(prediction.frames[:, 0], rendered.permute(0, 3, 1, 2))
    assert prediction.slots.shape == (3, 5 * 4, 3, 16)
    assert prediction.masks is None


@torch.no_grad()
def test_target_decides_the_loss_but_not_what_is_predicted(task):
    frames, classes = random_episodes(2)
    logits = logits_of(task, frames)
    for target in range(7):
        changed = frames.clone()
        changed[:, -1] = torch.tensor(PALETTE[target], dtype=torch.uint8)
        loss, _ = task({"frames": changed})
        expected = F.cross_entropy(logits, torch.full_like(classes[:, -1], target))
        torch.testing.assert_close(loss, expected)


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_streaming_in_two_parts_equals_the_whole(task, cut):
    frames, _ = random_episodes(2)
    whole = task.predict(frames[:, :-1])
    first = task.predict(frames[:, :cut])
    second = task.predict(frames[:, cut:-1], first.state)
    torch.testing.assert_close(torch.cat([first.slots, second.slots], 1), whole.slots, rtol=1e-4, atol=1e-5)
    assert torch.equal(second.frames, whole.frames)
    assert second.state.num_steps == whole.state.num_steps == 20
    # a stream that forgets how far it is gives its frames the wrong time
    amnesiac = task.predict(frames[:, cut:-1], first.state._replace(num_steps=0))
    assert not torch.allclose(amnesiac.slots, second.slots, rtol=1e-4, atol=1e-5)


def test_classes_of_stored_colours_are_exact(task):
    frames, classes = random_episodes(2)
    assert torch.equal(task.classes(frames[:, 0]), classes[:, 0])


def test_classes_of_other_colours_are_the_nearest(task):
    shades = torch.tensor([[[[20, 10, 0], [240, 250, 230], [250, 20, 10], [10, 230, 240]]]], dtype=torch.uint8)
    assert task.classes(shades).tolist() == [[[0, 1, 2, 6]]]


def test_one_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    task = build_task(preset("tiny-bcb"))
    frames, _ = random_episodes(2)
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        loss, _ = task({"frames": frames})
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5


def test_task_is_refused_without_its_data():
    run = preset("tiny-bcb").model_copy(update={"data": preset("tiny-oc").data})
    with pytest.raises(InputError, match="'recall' needs data of kind 'bcb', not 'bouncing'"):
        build_task(run)
