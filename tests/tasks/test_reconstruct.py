import numpy as np
import pytest
import torch
from own_task import own_task

from generators.scenes.tabletop import TabletopRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.matched import with_model
from slotssm.metrics import are_weights
from slotssm.models import SlotSSMConfig
from slotssm.tasks import Reconstruct
from slotssm.tasks.reconstruct import slot_contrast
from slotssm.tasks.task import as_pixels


@pytest.fixture
def task() -> Reconstruct:
    return own_task(preset("tiny-oc")).eval()


def random_frames(num: int = 2, frames: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (num, frames, 16, 16, 3), dtype=torch.uint8)


@torch.no_grad()
def test_loss_is_the_squared_error_of_what_is_predicted(task):
    frames = random_frames()
    loss, extra = task({"frames": frames})
    error = task.predict(frames)["frames"].double() - frames.permute(0, 1, 4, 2, 3).double() / 255
    torch.testing.assert_close(loss.double(), error.square().mean(), rtol=1e-6, atol=0)
    assert extra == {}


@torch.no_grad()
def test_prediction_is_a_blend_of_the_slots_images(task):
    prediction = task.predict(random_frames())
    assert prediction["slots"].shape == (2, 5, 3, 16)
    assert prediction["masks"].shape == (2, 5, 3, 16, 16)
    assert prediction["slot_frames"].shape == (2, 5, 3, 3, 16, 16)
    assert prediction["attention"].shape == (2, 5, 3, 8, 8)
    torch.testing.assert_close(prediction["masks"].sum(2), torch.ones(2, 5, 16, 16))
    torch.testing.assert_close(prediction["attention"].sum(2), torch.ones(2, 5, 8, 8))
    blend = (prediction["slot_frames"] * prediction["masks"][:, :, :, None]).sum(2)
    torch.testing.assert_close(prediction["frames"], blend)


@torch.no_grad()
def test_attention_lies_on_the_image_as_the_tokens_do(task):
    # a change in the lower left corner moves the attention to the cells there
    frames = random_frames(1, 1)
    changed = frames.clone()
    changed[:, :, 14:, :2] = 255 - changed[:, :, 14:, :2]
    tokens = (task.encoder(as_pixels(changed)) - task.encoder(as_pixels(frames))).abs().sum(-1).reshape(8, 8)
    assert tokens[6:, :2].sum() == tokens.sum() > 0
    read = (task.predict(changed)["attention"] - task.predict(frames)["attention"]).abs().sum(2)[0, 0]
    assert read[6:, :2].max() > 2 * read[:6].max()
    assert read[6:, :2].max() > 2 * read[:, 2:].max()


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 3])
def test_streaming_in_two_parts_equals_the_whole(task, cut):
    frames = random_frames()
    whole = task.predict(frames)
    first = task.predict(frames[:, :cut])
    second = task.predict(frames[:, cut:], first.state)
    for name in ("slots", "masks", "attention", "frames", "slot_frames"):
        parts = torch.cat([first[name], second[name]], 1)
        torch.testing.assert_close(parts, whole[name], rtol=1e-4, atol=1e-5)
    assert second.state.num_steps == 5


@torch.no_grad()
def test_frames_are_reconstructed_without_the_future(task):
    frames = random_frames()
    changed = frames.clone()
    changed[:, 3:] = 255 - changed[:, 3:]
    before, after = task.predict(frames)["frames"], task.predict(changed)["frames"]
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@torch.no_grad()
def test_slotssm_reconstructs_too_without_attention_to_show():
    model = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=1, num_heads=2, num_encoder_layers=1)
    task = own_task(preset("tiny-oc").replace(model=model))
    prediction = task.predict(random_frames())
    assert "attention" not in prediction
    assert set(prediction) == task.outputs == {"slots", "masks", "frames", "slot_frames"}
    assert prediction["masks"].shape == (2, 5, 3, 16, 16)


def test_one_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    task = own_task(preset("tiny-oc"))
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    frames = torch.zeros(2, 3, 16, 16, 3, dtype=torch.uint8)
    for t in range(3):
        frames[0, t][(y - 5 - t).square() + (x - 4).square() < 9] = torch.tensor([255, 0, 0], dtype=torch.uint8)
        frames[1, t][(y - 8).square() + (x - 10 + t).square() < 9] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    optimiser = torch.optim.Adam(task.parameters(), lr=5e-3)
    losses = []
    for _ in range(80):
        loss, _ = task({"frames": frames})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5


def test_pixels_are_bytes_over_255():
    frames = torch.arange(2 * 3 * 2 * 2 * 3, dtype=torch.uint8).reshape(2, 3, 2, 2, 3)
    pixels = as_pixels(frames)
    assert pixels.shape == (2, 3, 3, 2, 2)
    assert pixels.dtype == torch.float32
    assert pixels[1, 2, 0, 1, 1] == frames[1, 2, 1, 1, 0] / 255
    assert as_pixels(torch.full((1, 1, 1, 1, 3), 255, dtype=torch.uint8)).tolist() == [[[[[1.0]]] * 3]]


# --- canvas and slot contrast, which are not in the paper -------------------------------------------------


def canvas_task(canvas: str, **changes) -> Reconstruct:
    run = preset("tiny-oc")
    return own_task(run.replace(task=run.task.replace(canvas=canvas, **changes))).eval()


@torch.no_grad()
@pytest.mark.parametrize("canvas", ["color", "image"])
def test_a_canvas_is_the_last_mask_and_the_last_image(canvas):
    frames = random_frames()
    task = canvas_task(canvas)
    prediction = task.predict(frames)
    assert prediction["slots"].shape == (2, 5, 3, 16)
    assert prediction["masks"].shape == (2, 5, 4, 16, 16)
    assert prediction["slot_frames"].shape == (2, 5, 4, 3, 16, 16)
    torch.testing.assert_close(prediction["masks"].sum(2), torch.ones(2, 5, 16, 16))
    blend = (prediction["slot_frames"] * prediction["masks"][:, :, :, None]).sum(2)
    torch.testing.assert_close(prediction["frames"], blend)
    own = task.canvas(task.encoder(as_pixels(frames))).reshape(2, 5, 3, 16, 16)
    assert torch.equal(prediction["slot_frames"][:, :, 3], own)
    error = (prediction["frames"] - as_pixels(frames)).square().mean()
    torch.testing.assert_close(task({"frames": frames})[0], error)


@torch.no_grad()
@pytest.mark.parametrize("canvas", ["color", "image"])
def test_streams_with_a_canvas_equal_whole_episodes(canvas):
    frames, task = random_frames(), canvas_task(canvas)
    whole = task.predict(frames)
    first = task.predict(frames[:, :2])
    rest = task.predict(frames[:, 2:], first.state)
    for name in ("masks", "slot_frames", "frames"):
        torch.testing.assert_close(torch.cat([first[name], rest[name]], dim=1), whole[name])


@torch.no_grad()
def test_slot_contrast_is_added_with_its_weight_and_logged():
    frames = random_frames()
    torch.manual_seed(0)
    plain = canvas_task("none")
    torch.manual_seed(0)
    weighted = canvas_task("none", slot_contrast=0.5, slot_contrast_temperature=0.2)
    error, _ = plain({"frames": frames})
    loss, logged = weighted({"frames": frames})
    contrast = slot_contrast(weighted.predict(frames)["slots"], 0.2)
    torch.testing.assert_close(logged["mse"], error)
    torch.testing.assert_close(logged["slot_contrast"], contrast)
    torch.testing.assert_close(loss, error + 0.5 * contrast)
    # a single frame has no neighbour
    assert weighted({"frames": frames[:, :1]})[1] == {}


@torch.no_grad()
@pytest.mark.parametrize("model", ["oc-slotssm", "savi"])
def test_what_no_slot_attends_to_is_the_last_channel_of_the_attention(model):
    run = preset("tiny-oc")
    without, with_null = (
        own_task(run.replace(model=with_model(run, model).model.replace(null_slot=null_slot))).eval()
        for null_slot in (False, True)
    )
    with_null.load_state_dict(without.state_dict())
    frames = random_frames()
    attention = with_null.predict(frames)["attention"]
    assert attention.shape == (2, 5, 4, 8, 8)
    assert without.predict(frames)["attention"].shape == (2, 5, 3, 8, 8)
    torch.testing.assert_close(attention.sum(2), torch.ones(2, 5, 8, 8))
    with torch.no_grad():
        for name, parameter in with_null.named_parameters():
            if "query" in name:
                parameter.mul_(300)
    # weights also where rounding would make the rest negative
    assert are_weights(with_null.predict(frames)["attention"].numpy()).all()
    with_null.load_state_dict(without.state_dict())
    first = with_null.predict(frames[:, :2])
    rest = with_null.predict(frames[:, 2:], first.state)
    torch.testing.assert_close(torch.cat([first["attention"], rest["attention"]], dim=1), attention)


@torch.no_grad()
def test_pixels_that_the_canvas_does_not_explain_count_more():
    frames = random_frames()
    task = canvas_task("color", foreground_weight=4.0)
    task.canvas.color += torch.tensor([0.2, 0.1, 0.4])
    loss, logged = task({"frames": frames})
    true, blended = as_pixels(frames).double(), task.predict(frames)["frames"].double()
    distance = (true - torch.tensor([0.2, 0.1, 0.4]).view(3, 1, 1)).square().sum(2, keepdim=True)
    weight = 1 + 3 * torch.where(distance < 1, distance, 1.0)
    error = (blended - true).square()
    torch.testing.assert_close(loss.double(), (error * weight).sum() / (3 * weight.sum()), rtol=1e-5, atol=0)
    torch.testing.assert_close(logged["mse"].double(), error.mean(), rtol=1e-5, atol=0)


def test_weights_do_not_train_the_canvas_to_make_them_small():
    task, frames = canvas_task("color", foreground_weight=4.0), random_frames()
    # where the canvas is not blended, only its distance from the pixels could move it
    task.decoder.painter[-1].bias.data[3] = 1e4
    task({"frames": frames})[0].backward()
    assert task.canvas.color.grad.abs().max() == 0
    assert task.decoder.painter[-1].bias.grad.abs().max() > 0


@torch.no_grad()
def test_the_foreground_weight_waits_for_its_step():
    frames = random_frames()
    task = canvas_task("color", foreground_weight=4.0, foreground_weight_from=7)
    losses = []
    for step in (0, 6, 7, 8, 6):
        task.begin_step(step)
        loss, logged = task({"frames": frames})
        losses.append(loss.item())
    assert losses[0] == losses[1] == losses[4] == pytest.approx(logged["mse"].item())
    assert losses[2] == losses[3] != losses[0]


def test_foreground_weight_needs_a_canvas():
    run = preset("tiny-oc")
    with pytest.raises(InputError, match=r"foreground_weight needs a canvas"):
        own_task(run.replace(task=run.task.replace(foreground_weight=2.0)))


def test_a_canvas_learns_from_the_pixels_that_it_shows():
    for canvas in ("color", "image"):
        task = canvas_task(canvas)
        if canvas == "image":
            # it starts from one colour, whatever the tokens are
            torch.nn.init.normal_(task.canvas.head.weight)
        task({"frames": random_frames()})[0].backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in task.canvas.parameters())


@torch.no_grad()
@pytest.mark.parametrize("canvas", ["color", "image"])
def test_a_canvas_starts_from_the_median_colour_of_the_training_data(canvas, workplace):
    recipe = TabletopRecipe(num_frames=5, size_px=16)
    path = workplace / "d.h5"
    generate(RecipeData(recipe=recipe, num_train=4, num_val=1, num_test=0), path)
    task = canvas_task(canvas)
    with EpisodeFile(path) as episodes:
        task.fit_statistics(episodes, "train", 3)
        seen = np.stack([episodes.read("train", "frames", index) for index in range(3)])
    color = torch.from_numpy(np.median(seen[:, recipe.num_frames // 2].reshape(-1, 3), axis=0) / 255).float()
    assert color.any()
    found = task.canvas(torch.randn(1, 2, 64, 16))
    torch.testing.assert_close(found, color[None, :, None, None].expand(2, 3, 16, 16))


def test_slot_contrast_needs_neighbouring_frames():
    run = preset("tiny-oc")
    single = run.replace(task=run.task.replace(slot_contrast=0.1), train=run.train.replace(clip_len=1))
    with pytest.raises(InputError, match=r"slot_contrast compares neighbouring frames"):
        own_task(single)
