"""CATER from its folder to scores: import, pre-training, fine-tuning, evaluation and pictures."""

import numpy as np
import pytest
from foreign_files import write_cater

from slotssm.data.episodes import EpisodeFile
from slotssm.data.importers import ImportOptions, import_data
from slotssm.documents import override
from slotssm.evaluation.pictures import draw_predictions
from slotssm.experiments import presets
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.reproduce import reproduce
from slotssm.experiments.reproductions.studies.snitch import Snitch
from slotssm.experiments.runs import load_run
from slotssm.training.run import RunDirectory

FRAMES = 7


@pytest.fixture
def cater(tmp_path):
    """The cells of the videos in the validation list, and the imported file."""
    made = write_cater(tmp_path / "max2action", num=8)
    path = tmp_path / "cater.h5"
    options = ImportOptions(kind="cater", size=(24, 24), fixed_camera=True)
    import_data(tmp_path / "max2action", path, options)
    return [facts["cell"] for facts in made.values()][-2:], path


@pytest.fixture
def few_steps(monkeypatch):
    train = {"num_steps": 2, "batch_size": 3, "eval_every_steps": 2, "checkpoint_every_steps": 2}
    for name, clip_len in (("tiny-snitch", 4), ("tiny-snitch-pretrain", 3)):
        changes = {"train": {**train, "clip_len": clip_len}}
        changes |= {"task": {"num_eval_frames": 4}} if name == "tiny-snitch" else {}
        short = override(preset(name), changes, "test")
        monkeypatch.setitem(presets.PRESETS, name, lambda short=short: short)


def test_cater_is_trained_on_and_scored_with_the_labels_of_its_lists(cater, few_steps, tmp_path):
    cells, path = cater
    choice, folder = Choice("tiny", models=("oc-slotssm",), data=(path,)), tmp_path / "out"
    experiment = Snitch()
    made = reproduce(experiment, choice, folder, experiment.cells(choice), "cpu")
    assert (made.num_done, made.missing) == (5, [])
    located = [row for row in made.rows if row.setting["training"] == "direct"]
    assert {row.setting["questions"] for row in located} == {"last", "every"}
    with EpisodeFile(path) as truth:
        assert truth.read("val", "snitch_cell").tolist() == cells
        for row in located:
            (record,) = row.records
            task, _, _ = load_run(RunDirectory(folder / "runs" / record["cell"]))
            assert record["num_episodes"] == 2
            hits = []
            for index, cell in enumerate(cells):
                board = draw_predictions(task, truth, "val", [index]).frames()
                assert len(board) == 4
                import torch

                with torch.no_grad():
                    logits = task.predict_episode(
                        torch.from_numpy(truth.read("val", "frames", slice(index, index + 1)))
                    )
                hits.append(int(logits["logits"][0, -1].argmax()) == cell)
            assert record["values"]["top-1"] == np.mean(hits)
    majority = next(row for row in made.rows if row.model == "majority class")
    assert majority.metrics["top-1"].mean == max(cells.count(cell) for cell in cells) / 2
    # files of others do not say when the snitch was visible
    last = next(row for row in made.rows if row.model == "last visible position")
    assert last.metrics["top-1"].mean is None
