"""Masks from the decoder's cross-attention: those of the predicted frames, scored as by hand and only when asked."""

import numpy as np
import pytest
import torch
from own_task import own_task
from sklearn.metrics import adjusted_rand_score
from truth_files import PALETTE, random_masks, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.evaluation import ScoringOptions, TaskSource, evaluate
from slotssm.experiments.presets import preset

NUM, SIDE, SLOTS = 3, 16, 3


@pytest.fixture(params=["tiny-balls", "tiny-bcb"])
def scored(request, tmp_path):
    """A task whose slots differ, and a file of its kind of data."""
    config = override(preset(request.param), {"model": {"num_slots": SLOTS}}, "test")
    torch.manual_seed(1)
    task = own_task(config).eval()
    with torch.no_grad():
        # pieces choose between slots by far
        task.decoder.layers[-1].cross_attention.query.weight *= 30
    masks = random_masks(NUM, config.data.recipe.num_frames, SIDE)
    path = write_truth(tmp_path / "t.h5", palette=True, frames=PALETTE[masks], masks=masks)
    with EpisodeFile(path) as file:
        yield task, file, masks


@torch.no_grad()
def test_the_score_is_that_of_the_argmax_in_the_predicted_frames(scored):
    task, file, masks = scored
    frames = torch.from_numpy(file.read("test", "frames"))
    with task.requesting({"slots_read"}):
        read = task.predict_episode(frames)["slots_read"].numpy()
    labels = np.kron(read.argmax(2), np.ones((SIDE // read.shape[3], SIDE // read.shape[4]), int))
    expected = []
    for true, found in zip(masks[:, -labels.shape[1] :], labels, strict=True):
        expected.append(adjusted_rand_score(true[true > 0], found[true > 0]))
    options = ScoringOptions(mask_source="cross-attention")
    report = evaluate(TaskSource(task, "cross-attention"), file, "test", ["fg-ari", "miou"], options)
    assert np.unique(labels).size > 1
    assert report.values()["fg-ari"] == pytest.approx(np.mean(expected))
    assert report.results[0].options["mask_source"] == "cross-attention"


def test_slots_are_not_given_with_masks_of_other_frames(scored):
    task, file, _ = scored
    source = TaskSource(task, "cross-attention")
    assert {"masks", "soft"} <= source.provides
    assert "slots" not in source.provides
    assert set(source.predict(file, "test", 0, 1, {"masks", "soft", "slots"}).outputs) == {"masks", "soft"}


def test_by_default_there_are_no_masks(scored):
    task, file, _ = scored
    with pytest.raises(InputError, match="the predictions have no masks"):
        evaluate(TaskSource(task), file, "test", ["fg-ari"])


def test_a_task_without_transformer_decoder_has_none(scored):
    _, file, _ = scored
    options = ScoringOptions(mask_source="cross-attention")
    with pytest.raises(InputError, match="the predictions have no masks"):
        evaluate(TaskSource(own_task(preset("tiny-oc")), "cross-attention"), file, "test", ["fg-ari"], options)
