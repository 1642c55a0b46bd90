"""`slotssm predict`, and what its file is read by."""

import json
import shutil
import signal
import subprocess
import sys
import time

import h5py
import imageio.v3 as iio
import numpy as np
import pytest

from slotssm.data.importers.readers.videos import iterate_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of 40 frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    iio.imwrite(path, frames.repeat(4, 1).repeat(4, 2), plugin="FFMPEG", fps=20, codec="libx264")
    return path


def test_the_file_is_scored_as_the_run_is(slotssm, home, tmp_path):
    out = tmp_path / "p.h5"
    done = slotssm("predict", "runs/tiny-oc-001", "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    run = json.loads(slotssm("eval", "runs/tiny-oc-001", "--json").out)
    file = json.loads(slotssm("eval", "runs/tiny-oc-001", "--predictions", out, "--json").out)
    for ours, theirs in zip(run["results"], file["results"], strict=True):
        ours["options"].pop("mask_source", None)
        theirs["options"].pop("mask_source", None)
        assert ours == theirs


def test_json_names_what_was_written(slotssm, home, tmp_path, clip):
    out, overlay = tmp_path / "p.h5", tmp_path / "o.mp4"
    done = slotssm("predict", "runs/tiny-oc-001", "--video", clip, "--out", out, "--overlay", overlay, "--json")
    found = json.loads(done.out)
    assert found["run"] == "runs/tiny-oc-001"
    assert (found["predictions"], found["overlay"], found["source"]) == (str(out), str(overlay), str(clip))
    assert (found["split"], found["num_episodes"], found["num_frames"]) == ("test", 1, 40)
    assert found["outputs"]["masks"]["shape"] == [1, 40, 3, 16, 16]
    assert f"{clip} has frames of 64 x 64 px, which are resized to 16 x 16 px" in done.err
    assert len(list(iterate_video(overlay))) == 40


def test_recall_gives_its_target(slotssm, home, tmp_path):
    out = tmp_path / "p.h5"
    assert slotssm("predict", "runs/tiny-bcb-001", "--out", out).code == 0
    run = json.loads(slotssm("eval", "runs/tiny-bcb-001", "--json").out)
    file = json.loads(slotssm("eval", "runs/tiny-bcb-001", "--predictions", out, "--json").out)
    assert run["results"] == file["results"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "d.h5", "--video", "v.mp4"), "--data and --video exclude each other; leave out one"),
        (("--data", "absent.h5"), "absent.h5 does not exist"),
        (("--video", "absent.mp4"), "absent.mp4 does not exist; name a video file or a folder of pictures"),
        (("--outputs", "mask"), "--outputs mask is not an output of this model"),
        (("--outputs", "slots", "--hard-masks"), "--hard-masks needs masks among the outputs to write"),
        (("--out", "p.txt"), "--out p.txt must end in .h5"),
        (("--overlay", "o.gif"), "--overlay o.gif must end in .mp4"),
        (("--split", "dev"), "has no split 'dev'; it has train, val, test"),
    ],
)
def test_one_line_says_what_is_wrong(slotssm, home, arguments, message):
    done = slotssm("predict", "runs/tiny-oc-001", *arguments)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert message in done.error_lines[0]
    assert not (home / "predictions.h5").exists()


@pytest.mark.slow
def test_a_killed_prediction_leaves_nothing_that_looks_whole(home, tmp_path, environment, clip):
    out = tmp_path / "p.h5"
    folder = tmp_path / "long"
    folder.mkdir()
    picture = iio.imwrite("<bytes>", np.zeros((16, 16, 3), np.uint8), extension=".png")
    for number in range(3000):
        (folder / f"{number}.png").write_bytes(picture)
    command = [sys.executable, "-m", "slotssm", "predict", "runs/tiny-oc-001", "--video", folder, "--out", out]
    for number, left in ((signal.SIGTERM, 0), (signal.SIGKILL, 1)):
        process = subprocess.Popen(command, env=environment, cwd=home, stderr=subprocess.DEVNULL)
        for _ in range(6000):
            if list(tmp_path.glob(".p.*.h5")) or process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait() == (-9 if number == signal.SIGKILL else 3)
        assert not out.exists()
        assert len(list(tmp_path.glob(".p.*.h5"))) == left


# --- faults of the neighbourhood --------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("eval",), ("visualize",), ("predict",), ("eval", "--predictions", "p.h5")])
def test_a_run_whose_data_moved_says_how_to_name_them(slotssm, home, tmp_path, monkeypatch, command):
    run = shutil.copytree("runs/tiny-oc-001", tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    moved = record["data"]
    (run / "run.json").write_text(json.dumps(record | {"data": "/moved/away.h5"}))
    monkeypatch.chdir(tmp_path)
    if "--predictions" in command:
        with h5py.File("p.h5", "w") as file:
            file["test/masks"] = np.zeros((1, 1, 2, 2), np.uint8)
    done = slotssm(command[0], run, *command[1:])
    assert done.code == 2
    assert done.error_lines == [
        f"slotssm: {run}/run.json names the data /moved/away.h5, which does not exist; say where it is with --data"
    ]
    if command[0] != "eval":
        assert slotssm(*command, run, "--data", moved).code == 0


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("option", ["--predictions", "--data", "train"])
def test_a_file_of_numpy_is_refused_with_a_line_that_converts_it(slotssm, home, tmp_path, monkeypatch, suffix, option):
    data = next((home / "data").glob("tiny-oc-*.h5")).resolve()
    monkeypatch.chdir(tmp_path)
    masks = np.arange(2 * 6 * 4 * 4, dtype=np.uint8).reshape(2, 6, 4, 4)
    np.savez("p.npz", masks=masks)
    np.save("p.npy", masks)
    command = {
        "--predictions": ("eval", "--predictions", f"p{suffix}", "--data", data),
        "--data": ("eval", home / "runs/tiny-oc-001", "--data", f"p{suffix}"),
        "train": ("train", "--preset", "tiny-oc", "--data", f"p{suffix}"),
    }[option]
    done = slotssm(*command)
    assert done.code == 2
    start, line = done.error_lines[0].split("into one: ")
    assert f"p{suffix} is a NumPy file, not HDF5" in start
    # the line does what it says
    subprocess.run([sys.executable, "-c", f"import h5py, numpy; {line}"], check=True)
    with h5py.File("p.h5") as file:
        np.testing.assert_array_equal(file["test/masks"], masks)


@pytest.mark.parametrize("more", [(), ("--set", "train.num_steps=4")])
def test_data_of_a_size_that_does_not_fit_are_named(slotssm, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    with h5py.File("odd.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "slotssm-episodes", 2
        for split in ("train", "val", "test"):
            file[f"{split}/frames"] = np.zeros((2, 6, 17, 17, 3), np.uint8)
            file[f"{split}/frames"].attrs["dims"] = '["episode", "time", "height", "width", "channel"]'
    done = slotssm("train", "--preset", "tiny-oc", "--data", "odd.h5", *more)
    assert done.code == 2
    assert "frames of 17 x 17 px must have sides that are multiples of" in done.error_lines[0]
    assert done.error_lines[0].endswith(f"(the data are {tmp_path}/odd.h5)")
    assert "--set" not in done.error_lines[0]
