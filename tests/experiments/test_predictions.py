"""Predictions of a run in a file: what scoring reads, exactly as it scores the run."""

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import torch

from slotssm.data.importers.readers.videos import iterate_video, video_rate
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.predictions import CHUNK_FRAMES, Target, predict_data, predict_video
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import evaluate_predictions, evaluate_run, start_run
from slotssm.experiments.trained_model import TrainedModel, load
from slotssm.tasks import build_task
from slotssm.training.checkpoint import Description
from slotssm.training.run import RunDirectory

SIDE, SLOTS, FRAMES, NUM_TEST = 16, 3, 6, 18


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """More episodes than are predicted at a time."""
    folder = tmp_path_factory.mktemp("predicted")
    config = override(preset("tiny-oc"), {"train": {"num_steps": 3}, "data": {"num_test": NUM_TEST}}, "test")
    run = RunDirectory(folder / "run")
    start_run(config, spec_of(config.data), ensure_own_data(config, folder), run, "cpu", lambda report: None)
    return run


@pytest.fixture(scope="module")
def model(run):
    return load(run.path, "cpu")


@pytest.fixture
def clip():
    """Two squares that move over a dark floor, longer than one chunk."""
    frames = np.zeros((2 * CHUNK_FRAMES + 5, 32, 48, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[4:14, t % 30 : t % 30 + 10] = (250, 90, 20)
        frame[18:28, 36 - t % 30 : 46 - t % 30] = (30, 200, 90)
    return frames


@pytest.fixture
def video(tmp_path, clip):
    """The clip without losses, so that the frames are known."""
    path = tmp_path / "clip.mkv"
    iio.imwrite(path, clip, plugin="FFMPEG", fps=12, codec="ffv1", macro_block_size=1, pixelformat="bgr0")
    return path


def ignore(done, total):
    pass


def values(report):
    return {result.name: (result.value, result.interval, result.num_units) for result in report.results}


def test_scores_of_the_file_are_those_of_the_run_exactly(run, model, tmp_path):
    options = ScoringOptions()
    names = ("fg-ari", "ari", "miou", "mbo", "identity-switches", "slots-used", "mask-entropy", "mse", "psnr", "probe")
    expected = evaluate_run(run, None, "test", names, options, "cpu", ignore)
    out = tmp_path / "p.h5"
    written = predict_data(model, run.data(), "test", Target(out))
    found = evaluate_predictions(FileSource(out, "test"), run.data(), "test", names, options, ignore)
    assert values(found) == values(expected)
    assert all(value is not None for value, _, _ in values(found).values())
    assert (written.num_episodes, written.num_frames) == (NUM_TEST, FRAMES)
    assert written.outputs["masks"] == {"shape": [NUM_TEST, FRAMES, SLOTS, SIDE, SIDE], "dtype": "float32"}
    # labels alone keep the scores of segmentations
    predict_data(model, run.data(), "test", Target(out, names=("masks",), hard=True, force=True))
    found = evaluate_predictions(FileSource(out, "test"), run.data(), "test", names[:5], options, ignore)
    assert values(found).items() <= values(expected).items()
    with h5py.File(out) as file:
        assert list(file["test"]) == ["masks"]
        assert file["test/masks"].dtype == np.uint8
        assert file["test/masks"].shape == (NUM_TEST, FRAMES, SIDE, SIDE)


@pytest.mark.parametrize("hard", [False, True])
def test_a_canvas_is_scored_from_the_file_as_from_the_run(tmp_path, hard):
    changes = {"train": {"num_steps": 3}, "task": {"canvas": "color"}, "data": {"num_test": 14}}
    config = override(preset("tiny-oc"), changes, "test")
    run, options = RunDirectory(tmp_path / "run"), ScoringOptions()
    start_run(config, spec_of(config.data), ensure_own_data(config, tmp_path), run, "cpu", lambda report: None)
    names = ("fg-ari", "miou", "identity-switches", "slots-used", "probe")
    expected = evaluate_run(run, None, "test", names, options, "cpu", ignore)
    predict_data(load(run.path, "cpu"), run.data(), "test", Target(tmp_path / "p.h5", hard=hard))
    source = FileSource(tmp_path / "p.h5", "test")
    assert values(evaluate_predictions(source, run.data(), "test", names, options, ignore)) == values(expected)


@pytest.mark.parametrize("split", ["", "foo", ".."])
def test_an_unknown_split_and_a_wrong_rate_are_refused(model, video, tmp_path, split):
    with pytest.raises(InputError, match=r"`split` .* must be one of train, val, test"):
        predict_video(model, video, split, Target(tmp_path / "p.h5"))
    with pytest.raises(InputError, match="`fps` nan must be a positive number"):
        predict_video(model, video, "test", Target(tmp_path / "p.h5", frames_per_s=float("nan")))
    assert not (tmp_path / "p.h5").exists()


def test_a_data_set_without_masks_is_predicted(run, model, tmp_path):
    bare = tmp_path / "bare.h5"
    with h5py.File(run.data()) as source, h5py.File(bare, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "slotssm-episodes", 2
        source.copy("test/frames", file.create_group("test"))
    out, progress = tmp_path / "p.h5", []
    predict_data(model, bare, "test", Target(out), lambda done, total: progress.append((done, total)))
    assert progress == [(0, NUM_TEST), (16, NUM_TEST), (NUM_TEST, NUM_TEST)]
    with h5py.File(out) as file:
        assert set(file["test"]) == {"masks", "slots", "frames"}
        assert all(dataset.chunks[0] == 1 for dataset in file["test"].values())
        assert file["test/masks"].compression == "gzip"
        assert file["test/frames"].attrs["dims"] == '["episode", "time", "height", "width", "channel"]'


def test_a_video_is_read_in_chunks_and_written_as_a_whole(model, clip, video, tmp_path):
    out, overlay, notes, progress = tmp_path / "p.h5", tmp_path / "o.mp4", [], []
    written = predict_video(
        model, video, "test", Target(out, overlay), lambda done, total: progress.append((done, total)), notes.append
    )
    # the middle 32 x 32 px, each new pixel the mean of 2 x 2
    middle = clip[:, :, 8:40].reshape(len(clip), SIDE, 2, SIDE, 2, 3).mean((2, 4)).round().astype(np.uint8)
    np.testing.assert_array_equal(model.resize(clip), middle)
    expected = model(middle)
    with h5py.File(out) as file:
        for name in ("masks", "slots", "frames"):
            np.testing.assert_allclose(file[f"test/{name}"][0], expected[name], rtol=0, atol=1e-4)
    assert written.num_frames == len(clip)
    assert progress[-1] == (len(clip), len(clip))
    assert [done for done, _ in progress] == [CHUNK_FRAMES, 2 * CHUNK_FRAMES, len(clip)]
    assert notes == [
        f"{video} has frames of 48 x 32 px, which are cropped to the middle 32 x 32 px and resized to 16 x 16 px"
    ]
    drawn = list(iterate_video(overlay))
    assert len(drawn) == len(clip)
    assert video_rate(overlay) == (12, len(clip))


def test_a_folder_of_pictures_gives_what_the_video_gives(model, clip, video, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, frame in enumerate(clip):
        iio.imwrite(folder / f"{number}.png", frame)
    (folder / "notes.txt").write_text("not a picture")
    for source, out in ((video, "video.h5"), (folder, "folder.h5")):
        predict_video(model, source, "val", Target(tmp_path / out))
    with h5py.File(tmp_path / "video.h5") as first, h5py.File(tmp_path / "folder.h5") as second:
        for name in first["val"]:
            np.testing.assert_array_equal(first["val"][name], second["val"][name])


def test_a_video_of_the_model_s_size_is_taken_as_it_is(model, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    folder, notes = tmp_path / "pictures", []
    folder.mkdir()
    for number, frame in enumerate(frames):
        iio.imwrite(folder / f"{number}.png", frame)
    predict_video(model, folder, "test", Target(tmp_path / "p.h5"), on_note=notes.append)
    assert notes == []
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_array_equal(file["test/masks"][0], model(frames)["masks"])


def test_a_task_that_predicts_rolls_out_to_the_end_of_the_video(tmp_path):
    config = preset("tiny-balls")
    spec = spec_of(config.data)
    model = TrainedModel(build_task(config, spec).eval(), Description(config, spec), tmp_path)
    folder, length = tmp_path / "pictures", CHUNK_FRAMES + 3
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (length, spec.height, spec.width, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        iio.imwrite(folder / f"{number}.png", frame)
    predict_video(model, folder, "test", Target(tmp_path / "p.h5"))
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["test/frames"].shape[1] == length - config.task.num_context
        np.testing.assert_array_equal(file["test/frames"][0], model(frames)["frames"])
    with pytest.raises(
        InputError, match="`overlay` needs masks, which this model does not give; it gives frames, slot"
    ):
        predict_video(model, folder, "test", Target(tmp_path / "q.h5", tmp_path / "o.mp4"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "p.npz"}, "must end in .h5"),
        ({"overlay": "o.gif"}, "must end in .mp4"),
        ({"out": "there.h5"}, "exists already; `force` overwrites it"),
        ({"overlay": "there.mp4"}, "exists already; `force` overwrites it"),
        ({"names": ("mask",)}, "`outputs` mask is not an output of this model; it gives attention, frames, masks"),
        ({"names": ("slots",), "hard": True}, "`hard_masks` needs masks among the outputs to write, which are slots"),
    ],
)
def test_a_wrong_target_is_refused_before_anything_is_written(run, model, workplace, changes, message):
    for name in ("there.h5", "there.mp4"):
        (workplace / name).write_text("kept")
    paths = {name: workplace / value for name, value in changes.items() if name in ("out", "overlay")}
    target = Target(**{"out": workplace / "p.h5", **changes, **paths})
    with pytest.raises(InputError, match=message):
        predict_data(model, run.data(), "test", target)
    assert sorted(path.name for path in workplace.iterdir()) == ["there.h5", "there.mp4"]


def test_the_source_is_never_overwritten(run, model, video):
    before = run.data().read_bytes()
    with pytest.raises(InputError, match="is what is to be predicted; write to another file"):
        predict_data(model, run.data(), "test", Target(run.data(), force=True))
    assert run.data().read_bytes() == before


@pytest.mark.parametrize("overlay", [False, True])
def test_what_fails_in_the_middle_leaves_nothing(model, video, tmp_path, monkeypatch, overlay):
    (tmp_path / "p.h5").write_text("an earlier file")
    predict, calls = model.task.predict, []

    def failing(frames, state=None):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(frames, state)

    monkeypatch.setattr(model.task, "predict", failing)
    target = Target(tmp_path / "p.h5", tmp_path / "o.mp4" if overlay else None, force=True)
    with pytest.raises(KeyboardInterrupt):
        predict_video(model, video, "test", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "p.h5"]
    assert (tmp_path / "p.h5").read_text() == "an earlier file"


def test_values_that_are_not_finite_are_refused(run, tmp_path):
    damaged = load(run.path, "cpu")
    with torch.no_grad():
        next(damaged.task.parameters()).fill_(float("nan"))
    with pytest.raises(Exception, match="not finite numbers; its weights are damaged"):
        predict_data(damaged, run.data(), "test", Target(tmp_path / "p.h5"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist; name a video file or a folder of pictures"),
        (lambda path: path.mkdir(), "holds no pictures"),
        (lambda path: path.write_text("text"), "is damaged: it gives 0 frames"),
    ],
    ids=["absent", "empty folder", "text"],
)
def test_what_is_not_a_video_is_refused(model, tmp_path, make, message):
    source = tmp_path / "source"
    make(source)
    with pytest.raises(InputError, match=message):
        predict_video(model, source, "test", Target(tmp_path / "p.h5"))
    assert not (tmp_path / "p.h5").exists()


def test_an_episode_file_is_no_video(run, model, tmp_path):
    with pytest.raises(InputError, match="is not a video; give an episode file as `data`"):
        predict_video(model, run.data(), "test", Target(tmp_path / "p.h5"))


def test_frames_of_another_size_within_a_folder_are_refused(model, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, side in enumerate((SIDE, SIDE, 20)):
        iio.imwrite(folder / f"{number}.png", np.zeros((side, side, 3), np.uint8))
    with pytest.raises(InputError, match="frame 2 has 20 x 20 px, the first 16 x 16 px; bring all to one size"):
        predict_video(model, folder, "test", Target(tmp_path / "p.h5"))
