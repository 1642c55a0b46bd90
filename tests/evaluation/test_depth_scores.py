"""Depth is scored by hand: per episode, by region, beside the mean-depth image, from files and from a task."""

import h5py
import numpy as np
import pytest
from own_task import own_task
from truth_files import axes_of, name_axes, score, write, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import TaskSource, evaluate
from slotssm.evaluation.pictures import draw_predictions
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.evaluation.validation import validate
from slotssm.experiments.presets import preset

NUM, FRAMES, SIDE = 4, 3, 16
ERRORS = {
    "depth-mse": lambda t, p: (t - p) ** 2,
    "log-depth-mse": lambda t, p: np.log(t / p) ** 2,
    "inverse-depth-mse": lambda t, p: (1 / t - 1 / p) ** 2,
    "abs-rel": lambda t, p: abs(t - p) / t,
    "delta-1": lambda t, p: float(max(t / p, p / t) < 1.25),
}


def add_split(path, split: str, **datasets: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        for name, values in datasets.items():
            file[f"{split}/{name}"] = values
            name_axes(file[f"{split}/{name}"], axes_of(name, np.ndim(values)))


@pytest.fixture
def scene(tmp_path):
    """Files of truth and predictions, and their arrays; the third episode was not measured at all."""
    rng = np.random.default_rng(0)
    shape = NUM, FRAMES, SIDE, SIDE
    depth = rng.uniform(2, 20, shape).astype(np.float32)
    depth[rng.random(shape) < 0.2] = 0
    depth[2] = np.nan
    masks = rng.choice(np.array([0, 0, 1, 2, 255], np.uint8), shape)
    masks[3] = 0
    frames = rng.integers(0, 256, (*shape, 3), np.uint8)
    guess = (np.nan_to_num(np.where(depth > 0, depth, 5.0), nan=1.0) * rng.uniform(0.7, 1.4, shape)).astype(np.float32)
    truth = write_truth(tmp_path / "truth.h5", frames=frames, masks=masks, depth=depth)
    return truth, write(tmp_path / "p.h5", depth=guess), {"depth": depth, "masks": masks, "pred": guess}


def means(name: str, arrays, pred, chosen=lambda mask, depth, edge: True) -> list[float]:
    """Mean over the chosen measured pixels of each episode that has any."""
    found = []
    for depth, masks, guess in zip(arrays["depth"], arrays["masks"], pred, strict=True):
        pixels = [
            (float(t), float(p), int(m))
            for t, p, m in zip(depth.flat, guess.flat, masks.flat, strict=True)
            if np.isfinite(t) and t > 0
        ]
        edge = max((t for t, _, m in pixels if 0 < m < 255), default=-1.0)
        values = [ERRORS[name](t, p) for t, p, m in pixels if chosen(m, t, edge)]
        if values:
            found.append(float(np.mean(values)))
    return found


REGIONS = {
    "objects": lambda mask, depth, edge: 0 < mask < 255,
    "ground": lambda mask, depth, edge: mask == 0 and depth <= edge,
    "far": lambda mask, depth, edge: mask == 0 and depth > edge,
}


@pytest.mark.parametrize("batch", [1, 16])
def test_scores_are_means_over_the_measured_pixels_of_each_episode(scene, batch):
    truth, predictions, arrays = scene
    results = score(truth, predictions, batch=batch)
    assert set(results) == set(ERRORS)
    for name, result in results.items():
        expected = means(name, arrays, arrays["pred"])
        assert len(expected) == result.num_units == NUM - 1
        assert (result.num_skipped, result.unit) == (1, "video")
        assert result.value == pytest.approx(np.mean(expected), rel=1e-5)
        regions = result.details["by_region"]
        assert set(regions) == set(REGIONS)
        for region, chosen in REGIONS.items():
            assert regions[region]["value"] == pytest.approx(np.mean(means(name, arrays, arrays["pred"], chosen)), 1e-5)


@pytest.mark.parametrize("with_train", [True, False])
def test_the_mean_depth_image_is_of_the_training_split_if_there_is_one(scene, with_train):
    truth, predictions, arrays = scene
    source = arrays["depth"]
    if with_train:
        source = np.random.default_rng(5).uniform(3, 9, (2, FRAMES, SIDE, SIDE)).astype(np.float32)
        add_split(truth, "train", depth=source, frames=np.zeros((*source.shape, 3), np.uint8))
    known = np.where(np.isfinite(source) & (source > 0), source, np.nan).astype(np.float64)
    results = score(truth, predictions)
    for name, result in results.items():
        if name == "log-depth-mse":
            image = np.exp(np.nanmean(np.log(known), axis=(0, 1)))
        elif name == "inverse-depth-mse":
            image = 1 / np.nanmean(1 / known, axis=(0, 1))
        else:
            image = np.nanmean(known, axis=(0, 1))
        constant = np.broadcast_to(image, arrays["depth"].shape)
        assert result.details["mean_depth"] == pytest.approx(np.mean(means(name, arrays, constant)), rel=1e-5)
        objects = result.details["by_region"]["objects"]
        expected = np.mean(means(name, arrays, constant, REGIONS["objects"]))
        assert objects["mean_depth"] == pytest.approx(expected, rel=1e-5)


def test_without_masks_there_are_no_regions(scene):
    truth, predictions, _ = scene
    with h5py.File(truth, "r+") as file:
        del file["test/masks"]
    assert "by_region" not in score(truth, predictions)["abs-rel"].details


def test_nothing_measured_scores_nothing(tmp_path):
    frames = np.zeros((2, FRAMES, 4, 4, 3), np.uint8)
    truth = write_truth(tmp_path / "t.h5", frames=frames, depth=np.zeros(frames.shape[:4], np.float32))
    predictions = write(tmp_path / "p.h5", depth=np.ones(frames.shape[:4], np.float32))
    for result in score(truth, predictions).values():
        assert (result.value, result.num_skipped, result.details) == (None, 2, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda guess: guess[..., None], "must be numbers"),
        (lambda guess: guess[:, :, :8, :8], "cannot be compared"),
        (lambda guess: np.where(np.arange(SIDE) == 3, 0, guess), "not a positive number in"),
        (lambda guess: np.where(np.arange(SIDE) == 3, np.nan, guess), "not a positive number in"),
        (lambda guess: guess[:2], "has 2 episodes in test"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(scene, tmp_path, change, message):
    truth, _, arrays = scene
    bad = write(tmp_path / "bad.h5", depth=change(arrays["pred"]))
    with pytest.raises(InputError, match=message):
        score(truth, bad, "abs-rel")


def test_predictions_are_free_where_nothing_was_measured(scene, tmp_path):
    truth, predictions, arrays = scene
    free = np.where(np.isfinite(arrays["depth"]) & (arrays["depth"] > 0), arrays["pred"], np.nan)
    found = score(truth, write(tmp_path / "free.h5", depth=free.astype(np.float32)), "abs-rel")["abs-rel"]
    assert found.value == score(truth, predictions, "abs-rel")["abs-rel"].value


def test_a_task_is_scored_validated_and_drawn(scene):
    truth, _, arrays = scene
    task = own_task(preset("tiny-depth"))
    task.scale.fit([arrays["depth"]])
    with EpisodeFile(truth) as file:
        source = TaskSource(task)
        predicted = source.predict(file, "test", 0, NUM, {"depth"})["depth"]
        report = evaluate(source, file, "test", ["abs-rel", "fg-ari", "miou", "mbo"])
        board = draw_predictions(task, file, "test", [0]).frames()
        strip = draw_example_picture(task, file, "test")
    expected = means("abs-rel", arrays, predicted)
    assert report.values()["abs-rel"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert {"fg-ari", "miou", "mbo"} <= set(report.values())
    assert len(board) == FRAMES
    assert strip.shape == (4 * SIDE, 2 * (SIDE + 1), 3)
    logged = validate(task, truth, "test", NUM, 2)
    assert {"depth-mse", "log-depth-mse", "abs-rel", "abs-rel-mean-depth", "fg-ari", "miou"} <= set(logged)


def test_a_model_is_drawn_on_data_without_depth(scene):
    truth, _, arrays = scene
    task = own_task(preset("tiny-depth"))
    task.scale.fit([arrays["depth"]])
    with EpisodeFile(truth) as file:
        with_depth = draw_predictions(task, file, "test", [0]).frames()
    with h5py.File(truth, "r+") as file:
        del file["test/depth"]
    with EpisodeFile(truth) as file:
        without = draw_predictions(task, file, "test", [0]).frames()
    assert without.shape[2] < with_depth.shape[2]
