import itertools
import math

import pytest
import torch
from own_task import own_task

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from slotssm.config import RecipeData, RunConfig
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.layers import MambaConfig, S5Config
from slotssm.models import OCSlotSSMConfig, SlotSSMConfig
from slotssm.tasks import Predict, PredictConfig
from slotssm.tasks.task import nearest_classes

LOSSES = ("bce", "mse", "ce")
CONTEXT, FRAMES, SIZE = 3, 8, 16
COLORS = {"bce": ("white",), "mse": ("red", "cyan"), "ce": ("red", "cyan")}
PALETTES = {"bce": [(0, 0, 0), (255, 255, 255)], "ce": [(0, 0, 0), (255, 0, 0), (0, 255, 255)]}
PALETTES["mse"] = PALETTES["ce"]
SIZES = {"num_slots": 3, "slot_dim": 16, "num_layers": 2, "num_heads": 2}
MODEL = SlotSSMConfig(**SIZES, num_encoder_layers=1)


def tiny_run(loss: str = "bce", model=MODEL, **options) -> RunConfig:
    recipe = BouncingRecipe(
        num_frames=FRAMES,
        size_px=SIZE,
        min_objects=2,
        max_objects=2,
        shapes=("circle",),
        colors=COLORS[loss],
        radii_px=(2.0, 2.5),
        min_speed_px_per_frame=0.5,
        max_speed_px_per_frame=1.0,
    )
    task = PredictConfig(loss=loss, **{"num_context": CONTEXT, "num_decoder_layers": 1, **options})
    return RunConfig(data=RecipeData(recipe=recipe), task=task, model=model)


def tiny_task(loss: str = "bce", **options) -> Predict:
    """In eval mode, with biases and gains of the head that make predictions far from grey."""
    task = own_task(tiny_run(loss, **options)).eval()
    with torch.no_grad():
        task.decoder.head[1].weight *= 6
    return task


@pytest.fixture
def doubles():
    """Turns a task, and what is computed while the test runs, to double precision."""

    def turn(task: Predict) -> Predict:
        torch.set_default_dtype(torch.float64)
        return task.double()

    yield turn
    torch.set_default_dtype(torch.float32)


def random_frames(loss: str = "bce", num: int = 2, frames: int = FRAMES, seed: int = 0) -> torch.Tensor:
    """uint8 frames in the colours of the palette."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, len(PALETTES[loss]), (num, frames, 4, 4), generator=generator)
    classes = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.tensor(PALETTES[loss], dtype=torch.uint8)[classes]


def pixels_of(frames: torch.Tensor) -> torch.Tensor:
    return frames.permute(0, 1, 4, 2, 3).to(torch.get_default_dtype()) / 255


def next_values(task: Predict, past: torch.Tensor, first_frame: int = 0) -> torch.Tensor:
    """Decoded values of the frame after [B, t, 3, H, W], by reading the whole past at once."""
    return task.decoder(task.model(task.encoder(past, first_frame)).slots[:, -1])


def expected_pixels(loss: str, values: torch.Tensor) -> torch.Tensor:
    if loss == "bce":
        return (1 / (1 + torch.exp(-values))).repeat(1, 3, 1, 1)
    if loss == "mse":
        return values.minimum(torch.ones(())).maximum(torch.zeros(()))
    share = torch.exp(values) / torch.exp(values).sum(1, keepdim=True)
    colors = torch.tensor(PALETTES["ce"]) / 255
    return sum(share[:, c, None] * colors[c].to(values)[:, None, None] for c in range(3))


def likely_pixels(loss: str, values: torch.Tensor) -> torch.Tensor:
    if loss == "bce":
        return (values > 0).to(values).repeat(1, 3, 1, 1)
    if loss == "mse":
        return expected_pixels(loss, values)
    return (torch.tensor(PALETTES["ce"]).to(values) / 255)[values.argmax(1)].permute(0, 3, 1, 2)


# --- teacher forcing --------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_every_next_frame_from_the_true_past(loss):
    task, frames = tiny_task(loss), random_frames(loss)
    pixels = pixels_of(frames)
    losses, errors = [], []
    for t in range(1, FRAMES):
        values, target = next_values(task, pixels[:, :t]), pixels[:, t]
        if loss == "bce":
            p, white = values[:, 0].sigmoid().double(), target[:, 0].double()
            losses.append(-(white * p.log() + (1 - white) * (1 - p).log()))
        elif loss == "mse":
            losses.append((values.double() - target.double()) ** 2)
        else:
            classes = torch.tensor(
                [[[PALETTES["ce"].index(tuple(p)) for p in row] for row in f] for f in frames[:, t].tolist()]
            )
            losses.append(-values.double().log_softmax(1).gather(1, classes[:, None]))
        shown = likely_pixels(loss, values) if loss == "ce" else expected_pixels(loss, values)
        errors.append((shown.double() - target.double()) ** 2)
    found, extra = task({"frames": frames})
    torch.testing.assert_close(found.double(), torch.stack(losses).mean(), rtol=1e-5, atol=0)
    (error,) = extra.values()
    torch.testing.assert_close(error.double(), torch.stack(errors).mean(), rtol=1e-5, atol=0)


def test_squared_error_learns_from_values_that_are_out_of_range():
    # the loss is of the decoder's values: clamped ones would have no gradient
    task = tiny_task("mse")
    with torch.no_grad():
        task.decoder.head[1].bias.fill_(-50)
    loss, _ = task({"frames": random_frames("mse")})
    loss.backward()
    assert (task.decoder.head[1].bias.grad < -0.1).all()


@torch.no_grad()
def test_gray_levels_are_soft_targets():
    # half a pixel of white, as in anti-aliased data, is a probability
    task = tiny_task()
    gray = torch.full((1, 2, SIZE, SIZE, 3), 51, dtype=torch.uint8)
    p = next_values(task, pixels_of(gray)[:, :1]).sigmoid()
    expected = -(0.2 * p.log() + 0.8 * (1 - p).log()).mean()
    torch.testing.assert_close(task({"frames": gray})[0], expected)


@torch.no_grad()
def test_training_numbers_frames_from_a_random_start_shared_by_the_batch():
    task, frames = tiny_task(max_first_frame=5), random_frames()
    by_start = [_loss_from(task, frames, start) for start in range(6)]
    assert all(abs(a - b) > 1e-5 for a, b in itertools.combinations(by_start, 2))
    task.train()
    drawn = []
    for seed in range(60):
        torch.manual_seed(seed)
        task.begin_step(seed)
        loss = float(task({"frames": frames})[0])
        drawn.append(min(range(6), key=lambda start: abs(by_start[start] - loss)))
        assert by_start[drawn[-1]] == pytest.approx(loss, abs=1e-6)
        torch.manual_seed(seed)
        task.begin_step(seed)
        assert float(task({"frames": frames})[0]) == loss
    assert set(drawn) == set(range(6))
    # scores do not depend on chance
    task.eval()
    assert float(task({"frames": frames})[0]) == pytest.approx(by_start[0], abs=1e-6)


def _loss_from(task: Predict, frames: torch.Tensor, start: int) -> float:
    pixels = pixels_of(frames)
    values = torch.stack([next_values(task, pixels[:, :t], start)[:, 0] for t in range(1, FRAMES)], 1)
    return float(torch.nn.functional.binary_cross_entropy_with_logits(values, pixels[:, 1:, 0]))


@torch.no_grad()
def test_training_starts_at_the_first_frame_by_default():
    task, frames = tiny_task(), random_frames()
    expected = task({"frames": frames})[0]
    task.train()
    torch.testing.assert_close(task({"frames": frames})[0], expected)


# --- roll-outs --------------------------------------------------------------------------------------------


def roll_out_by_reading_everything_again(task: Predict, loss: str, feedback: str, context: torch.Tensor, num: int):
    """Frames and slots of a roll-out, the whole past encoded anew for every frame."""
    past, frames, slots = pixels_of(context), [], []
    for _ in range(num):
        output = task.model(task.encoder(past))
        values = task.decoder(output.slots[:, -1])
        slots.append(output.slots[:, -1])
        frames.append(likely_pixels(loss, values) if loss == "ce" else expected_pixels(loss, values))
        fed = likely_pixels(loss, values) if feedback == "mode" else expected_pixels(loss, values)
        past = torch.cat([past, fed[:, None]], 1)
    return torch.stack(frames, 1), torch.stack(slots, 1)


MODELS = {
    "slotssm": MODEL,
    "short-memory": MODEL.replace(time_mixer=MambaConfig(d_conv=2)),
    "s5": MODEL.replace(time_mixer=S5Config(d_state=8)),
    "oc-slotssm": OCSlotSSMConfig(**SIZES),
}


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feedback", ["mean", "mode"])
@pytest.mark.parametrize("loss", LOSSES)
def test_rollout_equals_reading_the_whole_past_again(doubles, loss, feedback, model):
    task = doubles(tiny_task(loss, model=MODELS[model], feedback=feedback))
    context = random_frames(loss)[:, :CONTEXT]
    expected_frames, expected_slots = roll_out_by_reading_everything_again(task, loss, feedback, context, 7)
    found = task.roll_out(context, 7)
    torch.testing.assert_close(found["frames"], expected_frames, rtol=0, atol=1e-9)
    torch.testing.assert_close(found["slots"], expected_slots, rtol=0, atol=1e-9)
    assert found["frames"].shape == (2, 7, 3, SIZE, SIZE)
    # the last prediction was not read
    assert found.state.num_steps == CONTEXT + 6
    # what is compared varies from frame to frame
    assert (found["slots"][:, 1:] - found["slots"][:, :-1]).abs().amax((0, 2, 3)).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_rollout_in_single_precision(loss):
    task, context = tiny_task(loss), random_frames(loss)[:, :CONTEXT]
    expected, _ = roll_out_by_reading_everything_again(task, loss, "mean", context, 5)
    torch.testing.assert_close(task.roll_out(context, 5)["frames"], expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_feedback_changes_what_is_read_but_not_how_it_is_shown(loss):
    context = random_frames(loss)[:, :CONTEXT]
    rolled = {}
    for feedback in ("mean", "mode"):
        torch.manual_seed(0)
        rolled[feedback] = tiny_task(loss, feedback=feedback).roll_out(context, 4)
    torch.testing.assert_close(rolled["mean"]["frames"][:, 0], rolled["mode"]["frames"][:, 0])
    assert not torch.allclose(rolled["mean"]["slots"][:, 1], rolled["mode"]["slots"][:, 1], atol=1e-3)
    for prediction in rolled.values():
        in_between = ((prediction["frames"] > 0) & (prediction["frames"] < 1)).any()
        assert in_between == (loss == "bce")


@torch.no_grad()
def test_rollout_reads_each_frame_once(monkeypatch):
    task, frames = tiny_task(), random_frames()
    read, stepped, sizes = [], [], []
    forward, step = type(task.model).forward, type(task.model).step
    monkeypatch.setattr(
        type(task.model), "forward", lambda self, x, s=None: read.append(x.shape[1]) or forward(self, x, s)
    )

    def counted(self, tokens, state):
        stepped.append(state.num_steps)
        sizes.append(sum(tensor.numel() for layer in state.layers for tensor in layer))
        return step(self, tokens, state)

    monkeypatch.setattr(type(task.model), "step", counted)
    task.roll_out(frames[:, :CONTEXT], 9)
    assert read == [CONTEXT]
    assert stepped == list(range(CONTEXT, CONTEXT + 8))
    assert len(set(sizes)) == 1


@torch.no_grad()
@pytest.mark.parametrize("loss", LOSSES)
def test_episodes_are_predicted_without_their_future(loss):
    task, frames = tiny_task(loss), random_frames(loss)
    changed = frames.clone()
    changed[:, CONTEXT:] = 255 - changed[:, CONTEXT:]
    before, after = task.predict_episode(frames), task.predict_episode(changed)
    assert before["frames"].shape == (2, FRAMES - CONTEXT, 3, SIZE, SIZE)
    assert before["slots"].shape == (2, FRAMES - CONTEXT, 3, 16)
    assert torch.equal(before["frames"], after["frames"])
    assert torch.equal(before["slots"], after["slots"])
    # all of the context is read
    whole = task.roll_out(frames[:, :CONTEXT], FRAMES - CONTEXT)
    assert torch.equal(whole["slots"], before["slots"])
    assert torch.equal(whole["frames"], before["frames"])


@torch.no_grad()
def test_a_shorter_rollout_is_the_beginning_of_a_longer_one():
    task, context = tiny_task(), random_frames()[:, :CONTEXT]
    longer = task.roll_out(context, 6)["frames"]
    for num in (1, 3):
        assert torch.equal(task.roll_out(context, num)["frames"], longer[:, :num])


@torch.no_grad()
def test_rollout_goes_on_from_a_stream():
    task, frames = tiny_task(), random_frames()
    whole = task.roll_out(frames[:, :5], 3)
    seen = task.predict(frames[:, :2])
    torch.testing.assert_close(
        task.roll_out(frames[:, 2:5], 3, seen.state)["frames"], whole["frames"], rtol=1e-4, atol=1e-5
    )


def test_episodes_without_a_future_are_refused():
    with pytest.raises(InputError, match="num_context 3 leaves nothing to predict of 3 frames"):
        tiny_task().predict_episode(random_frames()[:, :CONTEXT])


# --- one step ahead ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("loss", LOSSES)
def test_stream_predicts_the_frame_after_each_frame(loss):
    task, frames = tiny_task(loss), random_frames(loss)
    found = task.predict(frames)
    pixels = pixels_of(frames)
    for t in range(FRAMES):
        values = next_values(task, pixels[:, : t + 1])
        shown = likely_pixels(loss, values) if loss == "ce" else expected_pixels(loss, values)
        torch.testing.assert_close(found["frames"][:, t], shown, rtol=0, atol=1e-4)
    assert set(found) == task.outputs == {"slots", "frames"}
    assert found["frames"].min() >= 0
    assert found["frames"].max() <= 1
    # the last of them is the first of a roll-out
    torch.testing.assert_close(task.roll_out(frames, 1)["frames"][:, 0], found["frames"][:, -1], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_streaming_in_two_parts_equals_the_whole(cut):
    task, frames = tiny_task(), random_frames()
    whole = task.predict(frames)
    first = task.predict(frames[:, :cut])
    second = task.predict(frames[:, cut:], first.state)
    for name in ("slots", "frames"):
        parts = torch.cat([first[name], second[name]], 1)
        torch.testing.assert_close(parts, whole[name], rtol=1e-4, atol=1e-5)
    assert second.state.num_steps == whole.state.num_steps == FRAMES
    # a stream that forgets how far it is gives its frames the wrong number
    amnesiac = task.predict(frames[:, cut:], first.state._replace(num_steps=0))
    assert not torch.allclose(amnesiac["slots"], second["slots"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_streams_are_numbered_from_their_beginning_in_training_too():
    task, frames = tiny_task(max_first_frame=50), random_frames()
    expected = task.predict(frames)["slots"]
    torch.testing.assert_close(task.train().predict(frames)["slots"], expected)


# --- the whole --------------------------------------------------------------------------------------------


# squared error finds the moving edges of small objects later
@pytest.mark.parametrize(
    ("loss", "share"),
    [("bce", 0.2), pytest.param("ce", 0.2, marks=pytest.mark.slow), pytest.param("mse", 0.8, marks=pytest.mark.slow)],
)
def test_one_batch_can_be_learned_by_heart(loss, share):
    torch.manual_seed(0)
    task = own_task(tiny_run(loss))
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    frames = torch.zeros(2, 6, SIZE, SIZE, 3, dtype=torch.uint8)
    color = torch.tensor(PALETTES[loss][1], dtype=torch.uint8)
    for t in range(6):
        frames[0, t][(y - 4 - t).square() + (x - 4).square() < 9] = color
        frames[1, t][(y - 8).square() + (x - 11 + t).square() < 9] = color
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-2)
    losses = []
    for _ in range(300):
        loss_value, _ = task({"frames": frames})
        optimiser.zero_grad()
        loss_value.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimiser.step()
        losses.append(loss_value.item())
    assert losses[-1] < losses[0] / 5
    # what was learned is the motion: the roll-out stays with the truth and leaves the last frame behind
    with torch.no_grad():
        rolled = task.eval().predict_episode(frames)["frames"]
    actual = pixels_of(frames)[:, CONTEXT:]
    lazy = (actual - pixels_of(frames)[:, CONTEXT - 1 : CONTEXT]).square().mean()
    assert (rolled - actual).square().mean() < share * lazy


@torch.no_grad()
def test_blinking_balls_are_predicted_in_their_colours():
    recipe = BCBRecipe(num_frames=6, size_px=SIZE, num_balls=2, radius_px=2.0, speed_px_per_frame=1.0)
    run = RunConfig(data=RecipeData(recipe=recipe), task=PredictConfig(loss="ce", num_context=4), model=MODEL)
    task = own_task(run)
    assert task.palette.tolist() == [list(color) for color in recipe.palette]
    frames = torch.tensor(recipe.palette, dtype=torch.uint8)[torch.randint(0, 7, (2, 6, SIZE, SIZE))]
    # before training no colour is likelier than another by much
    assert float(task({"frames": frames})[0]) == pytest.approx(math.log(7), abs=0.5)
    shown = task.predict_episode(frames)["frames"]
    colors = {tuple(color) for color in (shown * 255).round().int().permute(0, 1, 3, 4, 2).reshape(-1, 3).tolist()}
    assert colors <= set(recipe.palette)


def test_classes_are_the_nearest_colours():
    palette = torch.tensor(PALETTES["ce"], dtype=torch.uint8)
    frames = torch.randint(0, 256, (2, 3, 5, 5, 3), dtype=torch.uint8)
    distance = (frames[..., None, :].double() - palette.double()).norm(dim=-1)
    assert torch.equal(nearest_classes(frames, palette), distance.argmin(-1))


@torch.no_grad()
def test_other_tasks_see_of_an_episode_what_they_may():
    frames = torch.randint(0, 256, (2, 6, SIZE, SIZE, 3), dtype=torch.uint8)
    recall, reconstruct = own_task(preset("tiny-bcb")).eval(), own_task(preset("tiny-oc")).eval()
    assert torch.equal(recall.predict_episode(frames)["slots"], recall.predict(frames[:, :-1])["slots"])
    assert torch.equal(reconstruct.predict_episode(frames)["frames"], reconstruct.predict(frames)["frames"])
    assert ["masks" in each.outputs for each in (recall, reconstruct, tiny_task())] == [False, True, False]
