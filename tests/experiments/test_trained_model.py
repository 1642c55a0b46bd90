"""A trained model that is called with videos."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import slotssm
from slotssm.config import RunConfig
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import load_run, start_run
from slotssm.experiments.trained_model import TrainedModel
from slotssm.training.checkpoint import Description
from slotssm.training.run import RunDirectory

FRAMES, SIDE, SLOTS, WIDTH = 7, 16, 3, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = override(preset("tiny-oc"), {"train": {"num_steps": 2}}, "test")
    run = RunDirectory(folder / "run")
    start_run(config, spec_of(config.data), ensure_own_data(config, folder), run, "cpu", lambda report: None)
    return run


@pytest.fixture(scope="module")
def model(run):
    return slotssm.load(run.path, device="cpu")


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)


def same(first, second, atol=0.0):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(np.asarray(first[name]), np.asarray(second[name]), rtol=0, atol=atol)


def test_outputs_are_those_of_the_task(run, model, video):
    task, config, folder = load_run(run)
    with torch.no_grad():
        expected = task.predict_episode(torch.from_numpy(video[None]))
    found = model(video)
    assert model.config == config
    assert model.checkpoint == folder
    assert set(found) == set(expected) == set(model.task.outputs)
    np.testing.assert_array_equal(found["slots"], expected["slots"][0])
    np.testing.assert_array_equal(found["masks"], expected["masks"][0])
    # colours come last, as in the video
    np.testing.assert_array_equal(found["frames"], expected["frames"][0].permute(0, 2, 3, 1))
    np.testing.assert_array_equal(found["slot_frames"], expected["slot_frames"][0].permute(0, 1, 3, 4, 2))
    assert found["frames"].shape == video.shape


def test_floats_tensors_and_batches_give_the_same(model, video):
    expected = model(video)
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in expected.values())
    for dtype in (np.float16, np.float32, np.float64):
        same(model((video / 255).astype(dtype)), expected, atol=0 if dtype != np.float16 else 0.1)
    tensors = model(torch.from_numpy(video).float() / 255)
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in tensors.values())
    same(tensors, expected)
    same(model(video[:, ::-1, ::-1][:, ::-1, ::-1]), expected)
    batch = model(np.stack([video, video[::-1]]))
    same({name: value[0] for name, value in batch.items()}, expected, atol=1e-4)
    assert all(len(value) == 2 for value in batch.values())


def test_outputs_can_be_used_in_training(model, video):
    probe = torch.nn.Linear(WIDTH, 1)
    probe(model(torch.from_numpy(video))["slots"]).sum().backward()
    assert probe.weight.grad.any()
    assert all(parameter.grad is None for parameter in model.task.parameters())


def test_the_task_is_evaluated_in_eval_mode_and_left_as_it_was(model, video):
    expected = model(video)
    model.task.train()
    try:
        same(model(video), expected)
        assert model.task.training
    finally:
        model.task.eval()


@pytest.mark.parametrize("chunk_frames", [1, 3, FRAMES, 100])
def test_a_stream_gives_the_whole_in_chunks(model, video, chunk_frames):
    expected, chunks = model(video), list(model.stream(iter(video), chunk_frames))
    assert [len(chunk["slots"]) for chunk in chunks[:-1]] == [chunk_frames] * (len(chunks) - 1)
    same({name: np.concatenate([chunk[name] for chunk in chunks]) for name in expected}, expected, atol=1e-4)
    assert chunks[-1].state.num_steps == FRAMES


def test_parts_continue_from_a_state(model, video):
    expected = model(video)
    first = model.advance(video[:3])
    rest = [model.advance(video[3:], first.state) for _ in range(2)]  # a state is not used up
    for each in rest:
        same({name: np.concatenate([first[name], each[name]]) for name in expected}, expected, atol=1e-4)


def test_a_stream_is_read_only_as_far_as_it_is_consumed(model, video):
    taken = []

    def camera():
        for index in range(10**6):
            taken.append(index)
            yield video[index % FRAMES]

    stream = model.stream(camera(), 2)
    next(stream)
    assert len(next(stream)["slots"]) == 2
    assert len(taken) == 4


def test_a_checkpoint_folder_is_loaded_too(run, model, video):
    same(slotssm.load(str(model.checkpoint), "cpu")(video), model(video))


def test_loading_leaves_the_random_numbers_alone(run):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    slotssm.load(run.path, "cpu")
    assert torch.equal(torch.rand(4), expected)


REFUSED = {
    "one frame": (lambda v: v[0], "add the axis of time"),
    "grey": (lambda v: v[..., 0], "repeat grey values"),
    "grey with a channel": (lambda v: v[..., :1], "repeat grey values"),
    "channels first": (lambda v: v.transpose(0, 3, 1, 2), "move the colours to the last axis"),
    "transparent": (lambda v: np.concatenate([v, v[..., :1]], -1), "leave out the fourth channel"),
    "flat": (lambda v: v.ravel(), r"a video is \[T, H, W, 3\], a batch \[B, T, H, W, 3\]"),
    "no frames": (lambda v: v[:0], "it is empty"),
    "other size": (lambda v: v[:, :8], "frames of 16 x 8 px, the model takes 16 x 16 px; .* method resize"),
    "integers": (lambda v: v.astype(np.int32), "the video is int32; convert it to uint8"),
    "integer tensor": (lambda v: torch.from_numpy(v).long(), "the video is int64; convert it to uint8"),
    "floats to 255": (lambda v: v.astype(np.float32), r"floats from 0 to 255, outside \[0, 1\]; divide by 255"),
    "normalised": (lambda v: v / 127.5 - 1, r"floats from -1 to 1, outside \[0, 1\]; map them"),
    "not finite": (lambda v: np.full(v.shape, np.nan), "not finite"),
    "text": (lambda v: "clip.mp4", "the video is <U8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_video_is_refused_with_the_remedy(model, video, case):
    video[0, 0, 0] = (0, 255, 0)
    change, message = REFUSED[case]
    for call in (model, model.advance):
        with pytest.raises(InputError, match=message):
            call(change(video))


def test_a_wrong_stream_is_refused(model, video):
    with pytest.raises(InputError, match=r"a frame has shape \[7, 16, 16, 3\]; a stream is of frames"):
        next(model.stream(video[None]))
    with pytest.raises(InputError, match=r"a frame has shape \[8, 16, 3\] after frames of \[16, 16, 3\]"):
        list(model.stream([video[0], video[0, :8]]))
    with pytest.raises(InputError, match="`chunk_frames` is 0"):
        next(model.stream(video, 0))


def test_resize_crops_the_middle_and_averages(model):
    wide = np.zeros((2, 32, 96, 3), np.uint8)
    wide[:, :, 32:64] = 100
    wide[:, :16, 32:48] = 200
    expected = np.full((2, SIDE, SIDE, 3), 100)
    expected[:, :8, :8] = 200
    np.testing.assert_array_equal(model.resize(wide), expected)
    np.testing.assert_array_equal(model.resize(wide / 255), expected)
    np.testing.assert_array_equal(model.resize(torch.from_numpy(wide)[0, 0:32]), expected[0])
    assert model(model.resize(wide))["masks"].shape == (2, SLOTS, SIDE, SIDE)
    with pytest.raises(InputError, match=r"frames are \[..., H, W, 3\]"):
        model.resize(wide[..., 0])


@pytest.mark.parametrize("name", ["tiny-bcb", "tiny-balls"])
def test_tasks_that_predict_give_their_episodes(name):
    from slotssm.tasks import build_task

    config: RunConfig = preset(name)
    spec = spec_of(config.data)
    model = TrainedModel(build_task(config, spec), Description(config, spec), None)
    video = np.zeros((spec.num_frames, spec.height, spec.width, 3), np.uint8)
    predicted = model(video)
    num_context = 1 if name == "tiny-bcb" else spec.num_frames - config.task.num_context
    assert predicted["frames"].shape == (num_context, spec.height, spec.width, 3)
    assert not model.task.can_stream


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent does not exist; give a run directory or a checkpoint folder"):
        slotssm.load(tmp_path / "absent")
    with pytest.raises(InputError, match="neither a checkpoint nor a run with one"):
        slotssm.load(tmp_path)
    with pytest.raises(InputError, match="`device` gpu"):
        slotssm.load(tmp_path, device="gpu")


def test_the_package_loads_nothing_before_it_is_used():
    code = (
        "import sys, slotssm\n"
        "assert 'load' in dir(slotssm) and not hasattr(slotssm, 'lode')\n"
        "heavy = {'torch', 'h5py', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
