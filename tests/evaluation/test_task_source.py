import numpy as np
import pytest
import torch
from truth_files import PALETTE, random_masks, write_truth

from slotssm import metrics
from slotssm.config import SlotSSMConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import TaskSource, evaluate
from slotssm.evaluation.validation import validate
from slotssm.presets import preset
from slotssm.tasks import build_task

EPISODES, SIZE = 3, 16


@pytest.fixture
def reconstruct():
    return build_task(preset("tiny-oc"))


@pytest.fixture
def shapes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (EPISODES, 4, SIZE, SIZE, 3), dtype=np.uint8)
    path = write_truth(tmp_path / "shapes.h5", frames=frames, masks=random_masks(EPISODES, 4, SIZE))
    with EpisodeFile(path) as file:
        yield file


@pytest.fixture
def recall():
    return build_task(preset("tiny-bcb"))


def ball_frames(target: int) -> np.ndarray:
    classes = np.random.default_rng(0).integers(0, 7, (EPISODES, 6, SIZE, SIZE))
    classes[:, -1] = target
    return PALETTE[classes]


# --- reconstruction ---------------------------------------------------------------------------------------


def test_decoder_masks_are_scored(reconstruct, shapes):
    reconstruct.eval()
    with torch.inference_mode():
        prediction = reconstruct.predict(torch.from_numpy(shapes.read("test", "frames")))
    report = evaluate(TaskSource(reconstruct), shapes, "test", ["fg-ari", "mse"])
    labels = prediction.masks.argmax(2).numpy()
    assert report.results[0].value == pytest.approx(metrics.fg_ari(random_masks(EPISODES, 4, SIZE), labels).mean)
    assert report.results[0].options["mask_source"] == "decoder"
    pixels = prediction.frames.permute(0, 1, 3, 4, 2).numpy()
    expected = metrics.squared_error(shapes.read("test", "frames"), pixels).mean()
    assert report.results[1].value == pytest.approx(expected, rel=1e-6)


def test_attention_masks_are_another_source_at_the_truths_resolution(reconstruct, shapes):
    source = TaskSource(reconstruct, "attention")
    predicted = source.predict(shapes, "test", 0, EPISODES)
    attention = source.run(shapes, "test", 0, EPISODES).attention.argmax(2).numpy()
    assert attention.shape == (EPISODES, 4, 8, 8)
    np.testing.assert_array_equal(predicted.masks, attention.repeat(2, 2).repeat(2, 3))
    report = evaluate(source, shapes, "test", ["miou"])
    assert report.results[0].options["mask_source"] == "attention"


def test_attention_of_a_model_without_any_is_refused(shapes):
    model = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=1, num_heads=2, num_encoder_layers=1)
    task = build_task(preset("tiny-oc").model_copy(update={"model": model}))
    assert evaluate(TaskSource(task), shapes, "test", ["fg-ari"]).results[0].num_units == EPISODES
    with pytest.raises(InputError, match="the predictions have no masks"):
        evaluate(TaskSource(task, "attention"), shapes, "test", ["fg-ari"])


@pytest.mark.parametrize("training", [True, False])
def test_scoring_runs_in_eval_mode_and_leaves_the_mode_as_it_was(shapes, training):
    run = preset("tiny-oc")
    task = build_task(run.model_copy(update={"model": run.model.model_copy(update={"dropout": 0.5})}))
    task.train(training)
    source = TaskSource(task)
    one, other = (source.predict(shapes, "test", 0, 2).frames for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert task.training == training


def test_episodes_do_not_depend_on_their_neighbours(reconstruct, shapes):
    source = TaskSource(reconstruct)
    together, alone = source.predict(shapes, "test", 0, 3), source.predict(shapes, "test", 1, 2)
    np.testing.assert_allclose(together.frames[1:2], alone.frames, rtol=1e-4, atol=1e-5)


# --- recall -----------------------------------------------------------------------------------------------


def test_target_is_predicted_without_being_seen(recall, tmp_path):
    predictions = []
    for target in (0, 3):
        with EpisodeFile(write_truth(tmp_path / f"{target}.h5", palette=True, frames=ball_frames(target))) as file:
            predictions.append(TaskSource(recall).predict(file, "test", 0, EPISODES).frames)
    assert predictions[0].shape == (EPISODES, 1, SIZE, SIZE, 3)
    np.testing.assert_array_equal(*predictions)


def test_recall_has_no_masks_to_score(recall, tmp_path):
    path = write_truth(tmp_path / "t.h5", palette=True, frames=ball_frames(1), masks=random_masks(EPISODES, 6, SIZE))
    with EpisodeFile(path) as file:
        report = evaluate(TaskSource(recall), file, "test")
        assert [result.metric for result in report.results] == ["mse", "color-accuracy", "position-iou", "white-floor"]
        for mask_source in ("decoder", "attention"):
            with pytest.raises(InputError, match="the predictions have no masks"):
                evaluate(TaskSource(recall, mask_source), file, "test", ["miou"])


def test_validation_leaves_out_what_cannot_be_scored(recall, tmp_path):
    path = write_truth(tmp_path / "t.h5", "val", palette=True, frames=ball_frames(0))
    assert set(validate(recall, path, "val", 2)) <= {"mse", "position-iou"}
    assert "mse" in validate(recall, path, "val", 2)
