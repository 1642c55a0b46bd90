import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from own_task import own_task

from generators.bcb import BCBRecipe, make_episode, target_colors
from generators.colors import COLORS
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.tasks import Recall, build_task
from slotssm.tasks.recall import prefix_targets

RULES = ("earliest", "frequent")
PALETTE = [(0, 0, 0), *list(COLORS.values())[:6]]


@pytest.fixture
def task() -> Recall:
    return own_task(preset("tiny-bcb")).eval()


def random_episodes(num: int, frames: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 frames in the colours of the palette, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 7, (num, frames, 4, 4), generator=generator)
    classes = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.tensor(PALETTE, dtype=torch.uint8)[classes], classes


def logits_of(task: Recall, frames: torch.Tensor) -> torch.Tensor:
    """Class scores of the target, put together from the parts of the task."""
    tokens = task.encoder(frames[:, :-1].permute(0, 1, 4, 2, 3) / 255)
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
def test_pieces_of_the_decoder_may_be_larger_than_those_that_are_read():
    whole, coarse = (
        own_task(override(preset("tiny-bcb"), {"task": {"piece_px": 2, "decoder_piece_px": piece}}, "test")).eval()
        for piece in (None, 8)
    )
    assert (whole.decoder.grid, coarse.decoder.grid) == ((8, 8), (2, 2))
    assert whole.encoder.grid == coarse.encoder.grid == (8, 8)
    frames, _ = random_episodes(2)
    assert coarse.predict(frames[:, :-1])["classes"].shape == (2, 1, 16, 16)
    bad = override(preset("tiny-bcb"), {"task": {"decoder_piece_px": 3}}, "test")
    with pytest.raises(InputError, match=r"task\.decoder_piece_px 3 does not divide the frame of 16 x 16 px"):
        build_task(bad, spec_of(bad.data))


@torch.no_grad()
def test_accuracy_of_a_target_without_balls_is_finite(task):
    _, extra = task({"frames": torch.zeros(2, 6, 16, 16, 3, dtype=torch.uint8)})
    assert list(extra.values()) == [0]


@torch.no_grad()
def test_prediction_renders_the_most_likely_class(task):
    frames, _ = random_episodes(3)
    prediction = task.predict(frames[:, :-1])
    rendered = torch.tensor(PALETTE)[logits_of(task, frames).argmax(1)] / 255
    torch.testing.assert_close(prediction["frames"][:, 0], rendered.permute(0, 3, 1, 2))
    assert prediction["slots"].shape == (3, 5 * 4, 3, 16)
    assert set(prediction) == task.outputs == {"slots", "frames", "classes"}
    assert torch.equal(prediction["classes"][:, 0], logits_of(task, frames).argmax(1))


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
    torch.testing.assert_close(torch.cat([first["slots"], second["slots"]], 1), whole["slots"], rtol=1e-4, atol=1e-5)
    assert torch.equal(second["frames"], whole["frames"])
    assert second.state.num_steps == whole.state.num_steps == 20
    # a stream that forgets how far it is gives its frames the wrong time
    amnesiac = task.predict(frames[:, cut:-1], first.state._replace(num_steps=0))
    assert not torch.allclose(amnesiac["slots"], second["slots"], rtol=1e-4, atol=1e-5)


def test_classes_of_stored_colours_are_exact(task):
    frames, classes = random_episodes(2)
    assert torch.equal(task.classes(frames[:, 0]), classes[:, 0])


def test_classes_of_other_colours_are_the_nearest(task):
    shades = torch.tensor([[[[20, 10, 0], [240, 250, 230], [250, 20, 10], [10, 230, 240]]]], dtype=torch.uint8)
    assert task.classes(shades).tolist() == [[[0, 1, 2, 6]]]


def test_one_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    task = own_task(preset("tiny-bcb"))
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
    run = preset("tiny-bcb").replace(data=preset("tiny-oc").data)
    with pytest.raises(InputError, match="'recall' needs Blinking Color Balls \\(generator 'bcb'\\)"):
        own_task(run)


# --- targets after every frame ----------------------------------------------------------------------------


def balls_as_pixels(num_frames: int, num_balls: int) -> torch.Tensor:
    """Masks [1, T, 1, 1 + N] whose pixels are the background and one of every ball."""
    return torch.arange(1 + num_balls, dtype=torch.uint8).expand(1, num_frames, 1, -1)


def classes_so_far(masks: np.ndarray, colors: np.ndarray, rule: str) -> np.ndarray:
    """Classes [T - 1, H, W] of one episode: the generator's rule, asked anew after every frame."""
    targets = []
    for t in range(len(colors) - 1):
        (frame, ball) = np.nonzero(colors[: t + 1])
        codes = target_colors(ball, colors[frame, ball], colors.shape[1], rule)
        targets.append(np.concatenate([[0], codes.astype(int) + 1])[masks[t + 1]])
    return np.stack(targets)


def episodes(num: int = 3, **changes) -> dict[str, torch.Tensor]:
    """A batch of generated episodes, small as in the preset."""
    recipe = BCBRecipe(**preset("tiny-bcb").data.recipe.model_dump() | changes)
    made = [make_episode(recipe, np.random.default_rng(seed)) for seed in range(num)]
    return {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}


@settings(deadline=None)
@given(
    num_balls=st.integers(1, 4),
    blinks=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=14),
    rule=st.sampled_from(RULES),
)
def test_prefix_targets_are_the_generators_rule_for_every_prefix(num_balls, blinks, rule):
    colors = np.zeros((len(blinks) + 1, num_balls), np.uint8)
    for t, (ball, code) in enumerate(blinks):
        colors[t, ball % num_balls] = code
    masks = balls_as_pixels(len(colors), num_balls)
    found = prefix_targets(masks, torch.from_numpy(colors)[None], rule)
    assert found[0].tolist() == classes_so_far(masks[0].numpy(), colors, rule).tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_frames", [2, 6, 25])
def test_prefix_targets_of_generated_episodes(num_frames, rule):
    batch = episodes(8, num_frames=num_frames, rule=rule, num_colors=2)
    found = prefix_targets(batch["masks"], batch["objects/color"], rule)
    for ours, masks, colors in zip(found, batch["masks"], batch["objects/color"], strict=True):
        assert torch.equal(ours, torch.from_numpy(classes_so_far(masks.numpy(), colors.numpy(), rule)))
    # the last of them is the target that the episode holds
    task = own_task(override(preset("tiny-bcb"), {"data": {"recipe": {"num_colors": 2}}}, "test"))
    assert torch.equal(found[:, -1], task.classes(batch["frames"][:, -1]))


@pytest.mark.parametrize(
    ("codes", "earliest", "frequent"),
    [
        # among equals the colour that came first, not the one that came last or has the lower code
        ([3, 5, 5, 3, 3], [3, 3, 3, 3, 3], [3, 3, 5, 3, 3]),
        ([5, 2, 2, 5, 1], [5, 5, 5, 5, 5], [5, 5, 2, 5, 5]),
        ([4, 1, 2, 2, 1, 1], [4, 4, 4, 4, 4, 4], [4, 4, 4, 2, 1, 1]),
        # nothing was shown, and then something
        ([0, 0, 4, 0, 1], [0, 0, 4, 4, 4], [0, 0, 4, 4, 4]),
        ([0, 0, 0], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_ties_and_balls_that_never_blink(codes, earliest, frequent):
    # one ball blinks, the other never does; the target's own colours are not read
    colors = torch.tensor([[[code, 0] for code in [*codes, 5]]], dtype=torch.uint8)
    masks = balls_as_pixels(len(codes) + 1, 2)
    for rule, expected in (("earliest", earliest), ("frequent", frequent)):
        found = prefix_targets(masks, colors, rule)
        assert found[0, :, 0].tolist() == [[0, code + 1, 1] for code in expected]


@pytest.mark.parametrize("rule", RULES)
def test_prefix_targets_of_an_episode_do_not_depend_on_the_others(rule):
    batch = episodes(5, rule=rule)
    masks, colors = batch["masks"], batch["objects/color"]
    whole = prefix_targets(masks, colors, rule)
    for index in range(5):
        alone = slice(index, index + 1)
        assert torch.equal(prefix_targets(masks[alone], colors[alone], rule), whole[alone])


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("patches", [1, 2, 4])
def test_prefix_loss_is_the_cross_entropy_of_every_next_frame(patches, rule):
    changes = {"task": {"targets": "prefix"}, "data": {"recipe": {"rule": rule, "patches_per_side": patches}}}
    task, batch = own_task(override(preset("tiny-bcb"), changes, "test")).eval(), episodes(rule=rule)
    assert set(task.fields) <= set(batch)
    frames, losses = batch["frames"], []
    expected = [
        classes_so_far(masks.numpy(), colors.numpy(), rule)
        for masks, colors in zip(batch["masks"], batch["objects/color"], strict=True)
    ]
    classes = torch.from_numpy(np.stack(expected))
    for t in range(1, frames.shape[1]):
        # as if frame t were the target of a shorter episode
        log_shares = logits_of(task, frames[:, : t + 1]).log_softmax(1)
        losses.append(-log_shares.gather(1, classes[:, t - 1 : t]))
    loss, extra = task({name: batch[name] for name in task.fields})
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    # the accuracy is that of the last one
    balls = classes[:, -1] > 0
    right = (log_shares.argmax(1) == classes[:, -1])[balls].float().mean()
    assert list(extra.values()) == [pytest.approx(float(right))]


def test_prefix_targets_ask_for_masks_and_colours_and_the_papers_protocol_for_frames_alone(task):
    assert task.fields == ("frames",)
    prefix = own_task(override(preset("tiny-bcb"), {"task": {"targets": "prefix"}}, "test"))
    assert prefix.fields == ("frames", "masks", "objects/color")


# --- patches of the task and of the data ------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("asked", [1, 4])
def test_patches_of_the_task_go_before_those_of_the_data(asked):
    """Those of the data (2) are a suggestion: what is read is what data of the asked-for patches would have read."""
    batch = episodes()
    task, expected = with_patches(2, patches_per_side=asked).eval(), with_patches(asked).eval()
    assert torch.equal(task(batch)[0], expected(batch)[0])
    found = task.predict_episode(batch["frames"])
    assert torch.equal(found["slots"], expected.predict_episode(batch["frames"])["slots"])
    assert found["slots"].shape[1] == found.state.num_steps == 5 * asked**2
    # going on in the middle of an episode, its frames keep their numbers
    first = task.predict(batch["frames"][:, :3])
    rest = task.predict(batch["frames"][:, 3:5], first.state)
    torch.testing.assert_close(rest["slots"], found["slots"][:, 3 * asked**2 :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "suggested", "patches"), [(None, 2, 2), (4, 2, 4), (1, 2, 1), (None, None, 1), (2, None, 2)]
)
def test_data_suggest_and_the_task_decides(asked, suggested, patches):
    run = override(preset("tiny-bcb"), {"task": {"patches_per_side": asked}}, "test")
    spec = spec_of(run.data).replace(patches_per_side=suggested)
    assert build_task(run, spec).encoder.patches_per_side == patches


def test_patches_of_the_task_must_fit_the_frames():
    run = override(preset("tiny-bcb"), {"task": {"patches_per_side": 3}}, "test")
    with pytest.raises(InputError, match=r"16 px in 3 patches per side, task\.patches_per_side"):
        own_task(run)


# --- a curriculum of patches ------------------------------------------------------------------------------

CURRICULUM = ((1, 3), (4, 2))
STAGES = {0: 1, 2: 1, 3: 4, 4: 4, 5: 2, 1000: 2}


def with_patches(patches: int, **aids) -> Recall:
    changes = {"task": aids, "data": {"recipe": {"patches_per_side": patches}}}
    torch.manual_seed(1)
    return own_task(override(preset("tiny-bcb"), changes, "test"))


@torch.no_grad()
@pytest.mark.parametrize("targets", ["last", "prefix"])
def test_the_step_alone_decides_the_patches(targets):
    batch = episodes()
    loss_with = {patches: with_patches(patches, targets=targets)(batch)[0] for patches in (1, 2, 4)}
    assert len({round(float(loss), 5) for loss in loss_with.values()}) == 3
    task = with_patches(2, targets=targets, curriculum=CURRICULUM)
    # until a step begins there is no stage
    assert torch.equal(task(batch)[0], loss_with[2])
    for step in (*STAGES, *reversed(STAGES), 0, 1000, 3):
        task.begin_step(step)
        assert torch.equal(task(batch)[0], loss_with[STAGES[step]]), step


@torch.no_grad()
def test_scores_and_predictions_are_of_the_datas_own_patches():
    batch = episodes()
    frames, plain = batch["frames"], with_patches(2).eval()
    task = with_patches(2, curriculum=CURRICULUM)
    for step in STAGES:
        task.begin_step(step)
        task.eval()
        assert torch.equal(task(batch)[0], plain(batch)[0])
        for mode in (True, False):
            task.train(mode)
            found, expected = task.predict_episode(frames), plain.predict_episode(frames)
            assert torch.equal(found["slots"], expected["slots"])
            assert torch.equal(found["frames"], expected["frames"])
            assert found.state.num_steps == 5 * 2**2


@torch.no_grad()
def test_one_set_of_weights_serves_all_patches():
    tasks = {patches: with_patches(patches) for patches in (1, 2, 4)}
    weights = {patches: task.state_dict() for patches, task in tasks.items()}
    for found in weights.values():
        assert {name: value.shape for name, value in found.items()} == {
            name: value.shape for name, value in weights[1].items()
        }
        assert all(torch.equal(found[name], weights[1][name]) for name in found)
    # sixteen pieces of a frame are the tokens of one step, or of sixteen steps
    pixels = episodes()["frames"].permute(0, 1, 4, 2, 3) / 255
    together, alone = tasks[1].encoder(pixels), tasks[4].encoder(pixels)
    assert together.shape == (3, 6, 16, 16)
    assert alone.shape == (3, 6 * 16, 1, 16)
    torch.testing.assert_close(alone.view(together.shape), together)
