import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from own_task import own_task
from truth_files import PALETTE, loosen, random_masks, write_truth

from generators.bouncing_recipe import BouncingRecipe
from slotssm import metrics
from slotssm.config import RecipeData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import ScoringOptions, TaskSource, evaluate
from slotssm.evaluation.validation import validate
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.matched import with_model
from slotssm.layers import SlotAttention
from slotssm.models import SlotSSMConfig
from slotssm.tasks import PredictConfig

EPISODES, SIZE = 3, 16
BATCH = 2
"""Episodes that validation predicts at a time."""


@pytest.fixture
def reconstruct():
    return own_task(preset("tiny-oc"))


@pytest.fixture
def shapes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (EPISODES, 4, SIZE, SIZE, 3), dtype=np.uint8)
    path = write_truth(tmp_path / "shapes.h5", frames=frames, masks=random_masks(EPISODES, 4, SIZE))
    with EpisodeFile(path) as file:
        yield file


@pytest.fixture
def recall():
    return own_task(preset("tiny-bcb"))


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
    labels = prediction["masks"].argmax(2).numpy()
    assert report.results[0].value == pytest.approx(metrics.fg_ari(random_masks(EPISODES, 4, SIZE), labels).mean)
    assert report.results[0].options["mask_source"] == "decoder"
    pixels = prediction["frames"].permute(0, 1, 3, 4, 2).numpy()
    expected = metrics.squared_error(shapes.read("test", "frames"), pixels).mean()
    assert report.results[1].value == pytest.approx(expected, rel=1e-6)


def test_attention_masks_are_another_source_at_the_truths_resolution(reconstruct, shapes):
    source = TaskSource(reconstruct, "attention")
    predicted = source.predict(shapes, "test", 0, EPISODES)
    attention = source.run(shapes, "test", 0, EPISODES)["attention"].argmax(2).numpy()
    assert attention.shape == (EPISODES, 4, 8, 8)
    np.testing.assert_array_equal(predicted["masks"], attention.repeat(2, 2).repeat(2, 3))
    report = evaluate(source, shapes, "test", ["miou"])
    assert report.results[0].options["mask_source"] == "attention"


def test_savi_has_attention_to_score(shapes):
    task = own_task(with_model(preset("tiny-oc"), "savi"))
    assert any(isinstance(part, SlotAttention) for part in task.modules())
    attention = TaskSource(task).run(shapes, "test", 0, EPISODES)["attention"].argmax(2).numpy()
    masks = attention.repeat(SIZE // attention.shape[-2], 2).repeat(SIZE // attention.shape[-1], 3)
    report = evaluate(TaskSource(task, "attention"), shapes, "test", ["fg-ari", "slots-used", "mask-entropy"])
    assert report.results[0].value == pytest.approx(metrics.fg_ari(random_masks(EPISODES, 4, SIZE), masks).mean)
    assert {result.options["mask_source"] for result in report.results} == {"attention"}
    assert report.results[0].value != evaluate(TaskSource(task), shapes, "test", ["fg-ari"]).results[0].value


@pytest.mark.parametrize("mask_source", ["decoder", "attention"])
def test_tasks_are_diagnosed_by_default(reconstruct, shapes, mask_source):
    source = TaskSource(reconstruct, mask_source)
    results = {result.metric: result for result in evaluate(source, shapes, "test").results}
    prediction = source.run(shapes, "test", 0, EPISODES)
    soft = prediction["masks"] if mask_source == "decoder" else prediction["attention"]
    num_slots = soft.shape[2]
    # without resizing: a mean over pixels that are repeated is the same mean
    entropy = scipy.stats.entropy(soft.double().numpy(), axis=2, base=num_slots)
    assert results["mask-entropy"].value == pytest.approx(entropy.mean(), rel=1e-4)
    masks = source.predict(shapes, "test", 0, EPISODES)["masks"]
    used = np.array([[(video == slot).sum() >= video.shape[0] for slot in range(num_slots)] for video in masks])
    assert results["slots-used"].value == pytest.approx(used.sum(1).mean())
    assert results["slots-used"].details["usage_by_slot"] == pytest.approx(used.mean(0))
    assert results["slots-used"].details["dead_slots"] == pytest.approx((~used.any(0)).mean())
    expected = metrics.identity_switches(random_masks(EPISODES, 4, SIZE), masks).mean
    assert results["identity-switches"].value == pytest.approx(expected)


def test_soft_masks_are_given_only_when_asked_for(reconstruct, shapes):
    source = TaskSource(reconstruct)
    assert "soft" not in source.predict(shapes, "test", 0, 1, {"masks"}).outputs
    soft = source.predict(shapes, "test", 0, 1, {"soft"})["soft"]
    np.testing.assert_allclose(soft.sum(2), 1, atol=1e-5)


@pytest.mark.parametrize("mask_source", ["decoder", "attention"])
def test_exactly_the_outputs_that_are_asked_for_are_given(reconstruct, shapes, mask_source):
    source = TaskSource(reconstruct, mask_source)
    whole = source.predict(shapes, "test", 0, 2)
    assert set(whole.outputs) == {"masks", "soft", "slots", "frames"}
    assert source.provides == {"masks", "soft", "slots", "frames", "slot_frames"}
    names = sorted(source.provides)
    for asked in [set(chosen) for size in range(6) for chosen in itertools.combinations(names, size)]:
        given = source.predict(shapes, "test", 0, 2, asked)
        assert set(given.outputs) == asked
        assert given.num_masks == 3
        for name in asked & set(whole.outputs):
            np.testing.assert_array_equal(given[name], whole[name])
    # what the task does not give is not given, and asking for it is no mistake
    assert set(source.predict(shapes, "test", 0, 1, {"depth", "logits", "frames"}).outputs) == {"frames"}


def test_attention_of_a_model_without_any_is_refused(shapes):
    model = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=1, num_heads=2, num_encoder_layers=1)
    task = own_task(preset("tiny-oc").replace(model=model))
    assert evaluate(TaskSource(task), shapes, "test", ["fg-ari"]).results[0].num_units == EPISODES
    with pytest.raises(InputError, match="the predictions have no masks"):
        evaluate(TaskSource(task, "attention"), shapes, "test", ["fg-ari"])


@pytest.mark.parametrize("training", [True, False])
def test_scoring_runs_in_eval_mode_and_leaves_the_mode_as_it_was(shapes, training):
    run = preset("tiny-oc")
    task = own_task(run.replace(model=run.model.replace(dropout=0.5)))
    task.train(training)
    source = TaskSource(task)
    one, other = (source.predict(shapes, "test", 0, 2)["frames"] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert task.training == training


def test_episodes_do_not_depend_on_their_neighbours(reconstruct, shapes):
    source = TaskSource(reconstruct)
    together, alone = source.predict(shapes, "test", 0, 3), source.predict(shapes, "test", 1, 2)
    np.testing.assert_allclose(together["frames"][1:2], alone["frames"], rtol=1e-4, atol=1e-5)


# --- recall -----------------------------------------------------------------------------------------------


def test_target_is_predicted_without_being_seen(recall, tmp_path):
    predictions = []
    for target in (0, 3):
        with EpisodeFile(write_truth(tmp_path / f"{target}.h5", palette=True, frames=ball_frames(target))) as file:
            predictions.append(TaskSource(recall).predict(file, "test", 0, EPISODES)["frames"])
    assert predictions[0].shape == (EPISODES, 1, SIZE, SIZE, 3)
    np.testing.assert_array_equal(*predictions)


def test_recall_has_no_masks_to_score(recall, tmp_path):
    path = write_truth(tmp_path / "t.h5", palette=True, frames=ball_frames(1), masks=random_masks(EPISODES, 6, SIZE))
    with EpisodeFile(path) as file:
        report = evaluate(TaskSource(recall), file, "test")
        names = ["mse", "psnr", "ssim", "color-accuracy", "position-iou", "white-floor"]
        assert [result.metric for result in report.results] == names
        for mask_source in ("decoder", "attention"):
            with pytest.raises(InputError, match="the predictions have no masks"):
                evaluate(TaskSource(recall, mask_source), file, "test", ["miou"])


def test_validation_leaves_out_what_cannot_be_scored(recall, tmp_path):
    path = write_truth(tmp_path / "t.h5", "val", palette=True, frames=ball_frames(0))
    assert set(validate(recall, path, "val", 2, BATCH)) <= {"mse", "position-iou"}
    assert "mse" in validate(recall, path, "val", 2, BATCH)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_validation_predicts_no_more_episodes_at_a_time_than_it_is_told(recall, tmp_path, monkeypatch, batch):
    path = write_truth(tmp_path / "t.h5", "val", palette=True, frames=ball_frames(2))
    read, predict = [], recall.predict_episode
    monkeypatch.setattr(recall, "predict_episode", lambda frames: read.append(len(frames)) or predict(frames))
    scores = validate(recall, path, "val", EPISODES, batch)
    assert read == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[batch]
    monkeypatch.undo()
    assert scores == pytest.approx(validate(recall, path, "val", EPISODES, 100))


# --- prediction -------------------------------------------------------------------------------------------

CONTEXT, FRAMES = 3, 8


@pytest.fixture
def predict():
    recipe = BouncingRecipe(num_frames=FRAMES, size_px=SIZE, colors=("white",), radii_px=(2.0, 2.5), max_objects=3)
    model = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=2, num_heads=2, num_encoder_layers=1)
    task = PredictConfig(num_context=CONTEXT, num_decoder_layers=1, max_first_frame=9)
    return own_task(RunConfig(data=RecipeData(recipe=recipe), task=task, model=model))


def white_frames(changed_from: int = FRAMES) -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 2, (EPISODES, FRAMES, SIZE, SIZE, 1), dtype=np.uint8)
    frames[:, changed_from:] = 1 - frames[:, changed_from:]
    return frames.repeat(3, -1) * np.uint8(255)


def test_rollouts_are_scored_beside_the_baselines(predict, tmp_path):
    frames = white_frames()
    path = write_truth(tmp_path / "t.h5", frames=frames, masks=random_masks(EPISODES, FRAMES, SIZE))
    with torch.inference_mode():
        rolled = predict.eval().roll_out(torch.from_numpy(frames[:, :CONTEXT]), FRAMES - CONTEXT)["frames"]
    pixels = rolled.permute(0, 1, 3, 4, 2).numpy()
    predict.train()
    with EpisodeFile(path) as file:
        report = evaluate(TaskSource(predict), file, "test")
        with pytest.raises(InputError, match="the predictions have no masks"):
            evaluate(TaskSource(predict), file, "test", ["fg-ari"])
    assert predict.training
    results = {result.metric: result for result in report.results}
    assert set(results) == {"mse", "psnr", "ssim"}
    assert results["mse"].value == pytest.approx(metrics.squared_error(frames[:, CONTEXT:], pixels).mean(), rel=1e-6)
    for name in results:
        score = metrics.rollout_mse if name == "mse" else getattr(metrics, name)
        args = (0,) if name == "mse" else ()
        steps = score(frames[:, CONTEXT:], pixels, *args)
        assert results[name].details["per_step"] == pytest.approx(steps.mean(0), rel=1e-5)
        lazy = np.repeat(frames[:, CONTEXT - 1 : CONTEXT], FRAMES - CONTEXT, axis=1)
        expected = score(frames[:, CONTEXT:], lazy, *args).mean()
        assert results[name].details["repeat_last_frame"] == pytest.approx(expected)


def test_rollouts_do_not_see_what_they_are_scored_against(predict, tmp_path):
    predictions = []
    for changed_from in (CONTEXT, FRAMES):
        path = write_truth(tmp_path / f"{changed_from}.h5", frames=white_frames(changed_from))
        with EpisodeFile(path) as file:
            predictions.append(TaskSource(predict).predict(file, "test", 0, EPISODES)["frames"])
    assert predictions[0].shape == (EPISODES, FRAMES - CONTEXT, SIZE, SIZE, 3)
    np.testing.assert_array_equal(*predictions)


def test_validation_logs_the_rollouts_error_and_what_it_must_beat(predict, tmp_path):
    frames = white_frames()
    path = write_truth(tmp_path / "t.h5", "val", frames=frames, masks=random_masks(EPISODES, FRAMES, SIZE))
    scores = validate(predict, path, "val", 2, BATCH)
    assert set(scores) == {"mse", "mse-repeat-last-frame"}
    lazy = (frames[:2, CONTEXT:] / 255 - frames[:2, CONTEXT - 1 : CONTEXT] / 255) ** 2
    assert scores["mse-repeat-last-frame"] == pytest.approx(lazy.mean())
    with EpisodeFile(path) as file:
        rolled = TaskSource(predict).predict(file, "val", 0, 2)["frames"]
    assert scores["mse"] == pytest.approx(metrics.squared_error(frames[:2, CONTEXT:], rolled).mean())


def test_episodes_that_end_with_their_context_are_refused(predict, tmp_path):
    path = write_truth(tmp_path / "t.h5", frames=white_frames()[:, :CONTEXT])
    with EpisodeFile(path) as file, pytest.raises(InputError, match="leaves nothing to predict of 3 frames"):
        evaluate(TaskSource(predict), file, "test")


def test_validation_scores_frames_where_ids_hold_for_a_frame_only(reconstruct, shapes, tmp_path):
    frames, masks = shapes.read("test", "frames"), shapes.read("test", "masks")
    path = loosen(write_truth(tmp_path / "loose.h5", frames=frames, masks=masks), "test")
    with EpisodeFile(path) as file:
        expected = evaluate(TaskSource(reconstruct), file, "test", ["fg-ari"], ScoringOptions(per_frame=True)).values()
    found = validate(reconstruct, path, "test", EPISODES, BATCH)
    assert set(found) == {"mse", "fg-ari", "miou", "mse-mean-image"}
    assert found["fg-ari"] == pytest.approx(expected["fg-ari"])
    assert found["fg-ari"] != pytest.approx(validate(reconstruct, shapes.path, "test", EPISODES, BATCH)["fg-ari"])


def test_validation_of_reconstructions_needs_masks_for_segmentation(reconstruct, shapes, tmp_path):
    assert set(validate(reconstruct, shapes.path, "test", 2, BATCH)) == {"mse", "fg-ari", "miou", "mse-mean-image"}
    frames = shapes.read("test", "frames")
    assert set(validate(reconstruct, write_truth(tmp_path / "f.h5", frames=frames), "test", 2, BATCH)) == {
        "mse",
        "mse-mean-image",
    }
