"""Controls of localisation: what is learned comes from the training split and its labels, and nothing else."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from generators.writer import generate
from slotssm.config import FileData, RunConfig, TrainConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.evaluation import TaskSource, evaluate
from slotssm.experiments.datasets import spec_of, spec_of_file
from slotssm.experiments.presets import preset
from slotssm.models import SlotSSMConfig
from slotssm.tasks import LocaliseConfig
from slotssm.training.run import RunDirectory
from slotssm.training.trainer import Trainer

CELLS, FRAMES, SIZE, HELD_OUT = 4, 3, 8, 120
DIMS = {
    "frames": ("time", "height", "width", "channel"),
    "snitch_cell": (),
}


def write(path, **splits):
    """An episode file of these splits, each frames and cells."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "slotssm-episodes", "format_version": 2})
        for split, (frames, cells) in splits.items():
            for name, values in (("frames", frames), ("snitch_cell", cells)):
                dataset = file.create_dataset(f"{split}/{name}", data=values)
                dataset.attrs["dims"] = json.dumps(["episode", *DIMS[name]])
            file[f"{split}/snitch_cell"].attrs.update({"kind": "categorical", "num_classes": CELLS})
    return path


def videos(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The colour of the frames says the cell; cell 2 is more frequent than others."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(CELLS, num, p=[0.2, 0.2, 0.4, 0.2]).astype(np.uint8)
    colors = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])[cells][:, None, None, None]
    noise = rng.integers(-60, 60, (num, FRAMES, SIZE, SIZE, 3))
    return (colors + noise).clip(0, 255).astype(np.uint8), cells


def held_out_top_1(path, folder) -> tuple[float, float]:
    """Top-1 of a small model on the test split, and the accuracy of the most frequent class."""
    run = RunConfig(
        data=FileData(path=str(path)),
        task=LocaliseConfig(encoder_channels=(8,)),
        model=SlotSSMConfig(num_slots=2, slot_dim=16, num_layers=1, num_heads=2, num_encoder_layers=1),
        train=TrainConfig(
            num_steps=300, batch_size=16, learning_rate=5e-3, warmup_steps=5, eval_every_steps=0, log_every_steps=100
        ),
    )
    directory = RunDirectory(folder)
    directory.path.mkdir()
    trainer = Trainer(run, spec_of_file(path), path, directory, "cpu")
    trainer.train()
    with EpisodeFile(path) as truth:
        (result,) = evaluate(TaskSource(trainer.task), truth, "test", ["top-1"]).results
    return result.value, result.details["majority_class"]


def test_with_shuffled_labels_accuracy_falls_to_the_majority_class(tmp_path):
    train, test = videos(200, 0), videos(HELD_OUT, 1)
    own = write(tmp_path / "own.h5", train=train, test=test)
    shuffled = np.random.default_rng(2).permutation(train[1])
    control = write(tmp_path / "control.h5", train=(train[0], shuffled), test=test)
    learned, majority = held_out_top_1(own, tmp_path / "own")
    assert learned > 0.9
    chance, _ = held_out_top_1(control, tmp_path / "control")
    # three standard errors of a share of this many episodes
    assert chance < majority + 3 * np.sqrt(majority * (1 - majority) / HELD_OUT)


def test_no_label_reaches_the_logits(tmp_path):
    run = preset("tiny-snitch")
    path = tmp_path / "own.h5"
    generate(run.data.replace(num_train=4, num_val=0, num_test=4), path, workers=1)
    other = tmp_path / "other.h5"
    shutil.copy(path, other)
    changed = []
    with h5py.File(other, "r+") as file:

        def invert(name, node):
            if isinstance(node, h5py.Dataset) and name != "frames":
                values = node[...]
                node[...] = values[::-1] if values.dtype.kind in "ui" else -values
                changed.append(name)

        file["test"].visititems(invert)
    assert {"snitch_cell", "snitch_ending", "objects/world_position", "masks"} <= set(changed)
    torch.manual_seed(0)
    for targets in ("last", "every"):
        config = override(run, {"task": {"targets": targets}}, "test")
        directory = RunDirectory(tmp_path / targets)
        directory.path.mkdir()
        task = Trainer(config, spec_of(config.data), path, directory, "cpu").task
        found = []
        for file in (path, other):
            with EpisodeFile(file) as truth:
                found.append(TaskSource(task).predict(truth, "test", 0, 4)["logits"])
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("targets", ["last", "every"])
def test_training_reads_no_other_split(tmp_path, targets):
    changes = {"train": {"num_steps": 4, "eval_every_steps": 2, "log_every_steps": 1}, "task": {"targets": targets}}
    run = override(preset("tiny-snitch"), changes, "test")
    path = tmp_path / "own.h5"
    generate(run.data.replace(num_train=16, num_val=4, num_test=4), path, workers=1)
    other = tmp_path / "other.h5"
    shutil.copy(path, other)
    with h5py.File(other, "r+") as file:
        for split in ("val", "test"):
            file[f"{split}/frames"][...] = 255 - file[f"{split}/frames"][...]
            file[f"{split}/snitch_cell"][...] = 35 - file[f"{split}/snitch_cell"][...]
    weights = []
    for index, data in enumerate((path, other)):
        directory = RunDirectory(tmp_path / f"run-{index}")
        directory.path.mkdir()
        trainer = Trainer(run, spec_of(run.data), data, directory, "cpu")
        trainer.train()
        weights.append(trainer.task.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
