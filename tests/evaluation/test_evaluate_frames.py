import json

import h5py
import numpy as np
import pytest
from truth_files import PALETTE, score, write, write_truth

from slotssm import metrics
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions, evaluate

EPISODES, FRAMES, CONTEXT, SIZE = 4, 6, 2, 5


def random_frames(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (EPISODES, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def truth(tmp_path):
    return write_truth(tmp_path / "truth.h5", frames=random_frames())


# --- roll-outs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [False, True])
def test_rollouts_are_scored_step_by_step_against_the_last_frames(tmp_path, truth, as_bytes):
    guess = random_frames(1)[:, CONTEXT:]
    stored = guess if as_bytes else (guess / 255).astype(np.float32)
    result = score(truth, write(tmp_path / "p.h5", frames=stored), "mse")["mse"]
    frames = random_frames() / 255
    error = (guess / 255 - frames[:, CONTEXT:]) ** 2
    assert result.value == pytest.approx(error.mean(), rel=1e-6)
    assert result.details["per_step"] == pytest.approx(error.mean(axis=(0, 2, 3, 4)), rel=1e-6)
    # what a model must beat
    last = (frames[:, CONTEXT - 1 : CONTEXT] - frames[:, CONTEXT:]) ** 2
    mean = (frames[:, :CONTEXT].mean(1, keepdims=True) - frames[:, CONTEXT:]) ** 2
    assert result.details["repeat_last_frame"] == pytest.approx(last.mean())
    assert result.details["mean_frame"] == pytest.approx(mean.mean())
    assert result.details["repeat_last_frame_per_step"] == pytest.approx(last.mean(axis=(0, 2, 3, 4)))
    assert result.details["mean_frame_per_step"] == pytest.approx(mean.mean(axis=(0, 2, 3, 4)))
    assert (result.unit, result.num_units, result.options) == ("episode", EPISODES, {})
    document = json.loads(json.dumps(result.document(), allow_nan=False))
    assert len(document["per_step"]) == FRAMES - CONTEXT


def test_repeating_the_last_context_frame_has_the_error_of_that_baseline(tmp_path, truth):
    lazy = np.repeat(random_frames()[:, CONTEXT - 1 : CONTEXT], FRAMES - CONTEXT, axis=1)
    result = score(truth, write(tmp_path / "p.h5", frames=lazy), "mse")["mse"]
    assert result.value == pytest.approx(result.details["repeat_last_frame"], rel=1e-12)


def test_perfect_frames_have_no_error(tmp_path, truth):
    result = score(truth, write(tmp_path / "p.h5", frames=random_frames()[:, CONTEXT:]), "mse")["mse"]
    assert result.value == 0
    assert result.details["per_step"] == [0] * (FRAMES - CONTEXT)
    assert result.interval == (0, 0)


def test_whole_reconstructions_have_no_context_and_no_baseline(tmp_path, truth):
    result = score(truth, write(tmp_path / "p.h5", frames=random_frames(1)), "mse")["mse"]
    error = (random_frames() / 255 - random_frames(1) / 255) ** 2
    assert result.value == pytest.approx(error.mean(), rel=1e-12)
    assert result.details == {}


def larger_frames(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (EPISODES, FRAMES, 12, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_rollouts_are_scored_by_similarity_beside_the_baselines(tmp_path, name):
    truth, guess = write_truth(tmp_path / "t.h5", frames=larger_frames()), larger_frames(1)[:, CONTEXT:]
    result = score(truth, write(tmp_path / "p.h5", frames=guess), name)[name]
    frames, function = larger_frames(), getattr(metrics, name)
    actual = frames[:, CONTEXT:]
    last = np.repeat(frames[:, CONTEXT - 1 : CONTEXT] / 255, FRAMES - CONTEXT, axis=1)
    mean = np.repeat((frames[:, :CONTEXT] / 255).mean(1, keepdims=True), FRAMES - CONTEXT, axis=1)
    assert result.value == pytest.approx(function(actual, guess).mean())
    assert result.details["per_step"] == pytest.approx(function(actual, guess).mean(axis=0))
    for baseline, pixels in (("repeat_last_frame", last), ("mean_frame", mean)):
        expected = function(actual, pixels)
        assert result.details[baseline] == pytest.approx(expected.mean())
        assert result.details[f"{baseline}_per_step"] == pytest.approx(expected.mean(axis=0))
    assert (result.unit, result.num_units, result.options) == ("episode", EPISODES, {})
    low, high = result.interval
    by_episode = function(actual, guess).mean(axis=1)
    assert by_episode.min() <= low <= result.value <= high <= by_episode.max()


def test_means_are_of_the_frames_scores_not_of_the_mean_error(tmp_path):
    # one perfect frame of two: 100 dB and 0 dB
    frames = np.zeros((1, 3, 4, 4, 3), np.uint8)
    guess = np.stack([frames[:, 0], frames[:, 0] + 255], 1)
    result = score(write_truth(tmp_path / "t.h5", frames=frames), write(tmp_path / "p.h5", frames=guess), "psnr")
    assert result["psnr"].value == 50
    assert result["psnr"].details["per_step"] == [100, 0]


def test_whole_reconstructions_are_scored_by_similarity_without_baselines(tmp_path):
    truth = write_truth(tmp_path / "t.h5", frames=larger_frames())
    results = score(truth, write(tmp_path / "p.h5", frames=larger_frames(1)))
    assert set(results) == {"mse", "psnr", "ssim"}
    assert results["psnr"].value == pytest.approx(metrics.psnr(larger_frames(), larger_frames(1)).mean())
    assert results["ssim"].value == pytest.approx(metrics.ssim(larger_frames(), larger_frames(1)).mean())
    assert results["psnr"].details == results["ssim"].details == {}


def test_small_frames_have_no_ssim(tmp_path, truth):
    predictions = write(tmp_path / "p.h5", frames=random_frames(1))
    assert set(score(truth, predictions)) == {"mse", "psnr"}
    with pytest.raises(InputError, match=r"ssim cannot be computed: .* has frames of 5 x 5 px, and it needs 11 px"):
        score(truth, predictions, "ssim")


@pytest.mark.parametrize("shape", [(FRAMES + 1, SIZE, SIZE, 3), (2, SIZE, SIZE + 1, 3), (2, SIZE, SIZE, 1)])
def test_frames_of_another_shape_are_refused(tmp_path, truth, shape):
    with pytest.raises(InputError, match="cannot be compared"):
        score(truth, write(tmp_path / "p.h5", frames=np.zeros((EPISODES, *shape), np.uint8)), "mse")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_no_numbers_are_refused_rather_than_left_out(tmp_path, truth, value):
    frames = np.zeros((EPISODES, 2, SIZE, SIZE, 3), np.float32)
    frames[1, 0, 0, 0, 0] = value
    with pytest.raises(InputError, match="test/frames holds values that are not finite"):
        score(truth, write(tmp_path / "p.h5", frames=frames), "mse")


# --- Blinking Color Balls ---------------------------------------------------------------------------------


def random_targets(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(7, (EPISODES, SIZE, SIZE), p=[0.4, *[0.1] * 6])


@pytest.fixture
def balls(tmp_path):
    frames = random_frames()
    frames[:, -1] = PALETTE[random_targets()]
    return write_truth(tmp_path / "balls.h5", palette=True, frames=frames)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_targets_are_scored_by_error_colour_and_position(tmp_path, balls, as_bytes):
    true, guess = random_targets(), random_targets(1)
    frames = PALETTE[guess][:, None]
    stored = frames if as_bytes else (frames / 255).astype(np.float32)
    results = score(balls, write(tmp_path / "p.h5", frames=stored))
    assert set(results) == {"mse", "psnr", "color-accuracy", "position-iou", "white-floor"}
    error = ((PALETTE[true] / 255 - PALETTE[guess] / 255) ** 2).mean()
    assert results["mse"].value == pytest.approx(error, rel=1e-6)
    pairs = list(zip(true, guess, strict=True))
    accuracy = [(t == g)[t > 0].mean() for t, g in pairs]
    iou = [((t > 0) & (g > 0)).sum() / ((t > 0) | (g > 0)).sum() for t, g in pairs]
    assert results["color-accuracy"].value == pytest.approx(np.mean(accuracy))
    assert results["position-iou"].value == pytest.approx(np.mean(iou))
    white = PALETTE[np.where(true > 0, 1, 0)] / 255
    floor = ((PALETTE[true] / 255 - white) ** 2).mean()
    assert results["white-floor"].value == pytest.approx(floor)
    # the floor stands beside the error, over the same episodes
    assert results["mse"].details == {"white_ball_floor": pytest.approx(floor)}
    assert results["psnr"].details == {}


def test_perfect_targets_score_one_and_white_ones_the_floor(tmp_path, balls):
    perfect = score(balls, write(tmp_path / "p.h5", frames=PALETTE[random_targets()][:, None]))
    assert [perfect[name].value for name in ("mse", "color-accuracy", "position-iou")] == [0, 1, 1]
    white = PALETTE[np.where(random_targets() > 0, 1, 0)][:, None]
    results = score(balls, write(tmp_path / "w.h5", frames=white))
    assert results["mse"].value == pytest.approx(results["white-floor"].value)
    assert results["position-iou"].value == 1


def test_targets_without_balls_are_skipped_and_counted(tmp_path):
    frames = np.zeros((EPISODES, 2, SIZE, SIZE, 3), np.uint8)
    frames[0, -1, 0, 0] = 255
    truth = write_truth(tmp_path / "t.h5", palette=True, frames=frames)
    result = score(truth, write(tmp_path / "p.h5", frames=frames[:, -1:]), "color-accuracy")["color-accuracy"]
    assert (result.value, result.num_units, result.num_skipped) == (1, 1, 3)


@pytest.mark.parametrize("name", ["color-accuracy", "position-iou"])
def test_targets_of_another_size_are_refused(tmp_path, balls, name):
    small = write(tmp_path / "p.h5", frames=np.zeros((EPISODES, 1, SIZE - 1, SIZE, 3), np.uint8))
    with pytest.raises(InputError, match="cannot be compared"):
        score(balls, small, name)


def test_a_palette_alone_makes_no_blinking_color_balls(tmp_path):
    # videos of a few flat colours have one too; only the rule says that the last frame is a target
    frames = PALETTE[np.random.default_rng(0).integers(0, 7, (EPISODES, FRAMES, SIZE, SIZE))]
    found = {}
    for marks in (("palette",), ("palette", "rule")):
        truth = write_truth(tmp_path / f"{len(marks)}.h5", palette=True, frames=frames)
        with h5py.File(truth, "r+") as file:
            for name in {"palette", "rule"} - set(marks):
                del file.attrs[name]
        found[marks] = score(truth, write(tmp_path / "p.h5", frames=frames[:, -1:]))
    balls, others = found["palette", "rule"], found[("palette",)]
    assert set(balls) - set(others) == {"color-accuracy", "position-iou", "white-floor"}
    assert "white_ball_floor" in balls["mse"].details
    # elsewhere one predicted frame is a short roll-out with its baselines
    assert {"per_step", "repeat_last_frame", "mean_frame"} <= set(others["mse"].details)
    assert "white_ball_floor" not in others["mse"].details


@pytest.mark.parametrize("stored", ["signed", "integers"])
def test_frames_of_another_range_are_refused_or_rescaled(tmp_path, truth, stored):
    guess = random_frames(1)[:, CONTEXT:]
    other, black_and_white = {
        "signed": ((guess / 127.5 - 1).astype(np.float32), (-1.0, 1.0)),
        "integers": (guess.astype(np.int32), (0.0, 255.0)),
    }[stored]
    path = write(tmp_path / "p.h5", frames=other)
    with pytest.raises(InputError, match="`frame_range`"):
        score(truth, path, "mse")
    with EpisodeFile(truth, needs_frames=False) as episodes:
        source = FileSource(path, "test", black_and_white)
        (result,) = evaluate(source, episodes, "test", ("mse",), ScoringOptions()).results
    expected = score(truth, write(tmp_path / "bytes.h5", frames=guess), "mse")["mse"]
    assert result.value == pytest.approx(expected.value, rel=1e-5)
