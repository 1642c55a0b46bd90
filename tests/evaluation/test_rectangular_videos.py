"""Videos that are wider than high, through every task: learned from, scored and drawn."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from boards import panels, tiles
from truth_files import PALETTE, write_truth

from slotssm.config import FileData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec, read_spec
from slotssm.evaluation import TaskSource, evaluate
from slotssm.evaluation.pictures import draw_predictions
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.layers import MambaConfig
from slotssm.models import OCSlotSSMConfig, SlotSSMConfig
from slotssm.tasks import PredictConfig, RecallConfig, ReconstructConfig, Task, build_task

EPISODES, FRAMES, HEIGHT, WIDTH, ZOOM = 2, 6, 16, 24, 6
SIZES = {"num_slots": 3, "slot_dim": 16, "num_layers": 1, "num_heads": 2, "time_mixer": MambaConfig(d_state=4)}
ENCODED = SlotSSMConfig(**SIZES, num_encoder_layers=1)
RECONSTRUCT = ReconstructConfig(encoder_channels=(8,), encoder_downsample=2, decoder_channels=(8,))
RUNS = {
    "reconstruct": (RECONSTRUCT, OCSlotSSMConfig(**SIZES)),
    "reconstruct-pieces": (
        RECONSTRUCT.replace(decoder="pieces", decoder_piece_px=8),
        OCSlotSSMConfig(**SIZES),
    ),
    "predict-mse": (PredictConfig(loss="mse", num_decoder_layers=1, num_context=3), ENCODED),
    "predict-ce": (PredictConfig(loss="ce", num_decoder_layers=1, num_context=3), ENCODED),
    "recall": (RecallConfig(num_decoder_layers=1), ENCODED),
    "recall-prefix": (RecallConfig(num_decoder_layers=1, targets="prefix", patches_per_side=1), ENCODED),
}
SPEC = DataSpec(
    num_frames=FRAMES,
    height=HEIGHT,
    width=WIDTH,
    palette=[tuple(color) for color in PALETTE.tolist()],
    rule="earliest",
    patches_per_side=2,
)


@pytest.fixture(params=RUNS)
def task(request) -> Task:
    config, model = RUNS[request.param]
    return build_task(RunConfig(data=FileData(path="none.h5"), task=config, model=model), SPEC).eval()


@pytest.fixture
def truth(tmp_path):
    rng = np.random.default_rng(0)
    # blocks of 4 x 4 px in the colours of the palette
    classes = rng.integers(0, 7, (EPISODES, FRAMES, HEIGHT // 4, WIDTH // 4)).repeat(4, 2).repeat(4, 3)
    masks = rng.integers(0, 4, (EPISODES, FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
    path = write_truth(
        tmp_path / "t.h5",
        palette=True,
        frames=PALETTE[classes],
        masks=masks,
        **{"objects/color": rng.integers(0, 6, (EPISODES, FRAMES, 3), dtype=np.uint8)},
    )
    with EpisodeFile(path) as file:
        assert (read_spec(file).height, read_spec(file).width) == (HEIGHT, WIDTH)
        yield file


def outputs_of(task: Task, truth: EpisodeFile):
    with torch.inference_mode():
        return task.predict_episode(torch.from_numpy(truth.read("test", "frames")))


def test_outputs_have_the_shape_of_the_frames(task, truth):
    outputs = outputs_of(task, truth)
    assert set(outputs) == task.outputs
    assert outputs["frames"].shape[-3:] == (3, HEIGHT, WIDTH)
    if "masks" in outputs:
        assert outputs["masks"].shape == (EPISODES, FRAMES, 3, HEIGHT, WIDTH)
        assert outputs["attention"].shape == (EPISODES, FRAMES, 3, HEIGHT // 2, WIDTH // 2)
        assert outputs["slot_frames"].shape == (EPISODES, FRAMES, 3, 3, HEIGHT, WIDTH)
    if "classes" in outputs:
        assert outputs["classes"].shape == (EPISODES, 1, HEIGHT, WIDTH)


def test_training_has_gradients_everywhere(task, truth):
    batch = {name: torch.from_numpy(truth.read("test", name)) for name in task.fields}
    loss, _ = task.train()(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in task.decoder.parameters())
    assert all(parameter.grad.any() for parameter in task.encoder.parameters())


def test_a_change_in_the_lower_left_corner_changes_tokens_there(task, truth):
    """Tokens of a frame that is not square lie row by row, whatever patches they come in."""
    pixels = torch.from_numpy(truth.read("test", "frames", 0)[:1]).permute(0, 3, 1, 2)[None].float() / 255
    changed = pixels.clone()
    changed[..., HEIGHT - 2 :, :2] = 1 - changed[..., HEIGHT - 2 :, :2]
    with torch.no_grad():
        moved = (task.encoder(changed) - task.encoder(pixels)).abs().sum(-1)[0]
    rows, columns = task.encoder.grid
    patches = getattr(task.encoder, "patches_per_side", 1)
    grid = moved.reshape(patches, patches, rows // patches, columns // patches).permute(0, 2, 1, 3)
    grid = grid.reshape(rows, columns)
    assert grid[-1, 0] > 0
    # a convolution reaches one cell further
    assert grid[-2:, :2].sum() == grid.sum()


def test_scores_are_those_of_plain_formulas(task, truth):
    outputs, frames = outputs_of(task, truth), truth.read("test", "frames")
    predicted = outputs["frames"].permute(0, 1, 3, 4, 2).double().numpy()
    values = evaluate(TaskSource(task), truth, "test").values()
    actual = frames[:, -predicted.shape[1] :] / 255
    assert values["mse"] == pytest.approx(((predicted - actual) ** 2).mean(), rel=1e-5)
    assert {"psnr", "ssim"} <= set(values)
    if "masks" in outputs:
        masks, labels = truth.read("test", "masks"), outputs["masks"].argmax(2).numpy()
        scores = [
            sklearn.metrics.adjusted_rand_score(true[true > 0], found[true > 0])
            for true, found in zip(masks, labels, strict=True)
        ]
        assert values["fg-ari"] == pytest.approx(np.mean(scores))
    if "classes" in outputs:
        target = (frames[:, -1, :, :, None] == PALETTE).all(-1).argmax(-1)
        hits = [
            (found == true)[true > 0].mean()
            for true, found in zip(target, outputs["classes"][:, 0].numpy(), strict=True)
        ]
        assert values["color-accuracy"] == pytest.approx(np.mean(hits))


def test_attention_is_scored_at_the_size_of_the_frames(truth):
    config, model = RUNS["reconstruct"]
    task = build_task(RunConfig(data=FileData(path="none.h5"), task=config, model=model), SPEC).eval()
    attention = outputs_of(task, truth)["attention"].argmax(2).numpy()
    masks = TaskSource(task, "attention").predict(truth, "test", 0, EPISODES, {"masks"})["masks"]
    np.testing.assert_array_equal(masks, attention.repeat(2, 2).repeat(2, 3))


def test_pictures_and_strips_are_not_distorted(task, truth):
    frames, outputs = truth.read("test", "frames"), outputs_of(task, truth)
    predicted = outputs["frames"].permute(0, 1, 3, 4, 2).clamp(0, 1).numpy()
    board = draw_predictions(task, truth, "test").frames()
    for episode in range(EPISODES):
        shown = tiles(board, len(board) - 1, episode, HEIGHT, WIDTH, ZOOM)
        # what is given comes first; of tasks that predict one frame all but the last
        np.testing.assert_array_equal(shown[0], frames[episode, len(board) - 1])
        index = 1 if len(predicted[0]) == FRAMES - 3 else 2
        assert np.abs(shown[index] - predicted[episode, -1] * 255).max() <= 1
    rows = panels(draw_example_picture(task, truth, "test"), HEIGHT, WIDTH)
    assert len(rows) == (4 if "masks" in outputs else 2)
    if len(predicted[0]) == 1:
        np.testing.assert_array_equal(rows[0], frames[:, -1])
    else:
        first = 0 if "masks" in outputs else FRAMES - 2
        np.testing.assert_array_equal(rows[0], frames[0, first::2])
