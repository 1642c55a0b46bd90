"""Which slots are used, how they share pixels, whether they keep their objects, in evaluations of files."""

import json

import numpy as np
import pytest
import scipy.stats
from truth_files import loosen, random_masks, score, write, write_truth

from slotssm import metrics
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions, evaluate


@pytest.fixture
def truth(tmp_path):
    return write_truth(tmp_path / "truth.h5", masks=random_masks())


def weights(seed: int = 0, num_slots: int = 6) -> np.ndarray:
    """Soft masks [5, 3, K, 8, 8]; the last slot wins no pixel, and the one before it in one video only."""
    soft = np.random.default_rng(seed).dirichlet(np.ones(num_slots), size=(5, 3, 8, 8)).transpose(0, 1, 4, 2, 3)
    soft[:, :, -1] = 0
    soft[1:, :, -2] = 0
    return soft / soft.sum(2, keepdims=True)


def test_soft_files_are_diagnosed_by_default(tmp_path, truth):
    soft = weights()
    results = score(truth, write(tmp_path / "p.h5", masks=soft))
    assert set(results) == {"fg-ari", "ari", "miou", "mbo", "identity-switches", "slots-used", "mask-entropy"}
    labels = soft.argmax(2)
    used = np.array([[(video == slot).sum() >= 3 for slot in range(6)] for video in labels])
    assert used.sum() == 4 * 5 + 1
    assert results["slots-used"].value == pytest.approx(used.sum(1).mean())
    assert results["slots-used"].details == {"usage_by_slot": [1, 1, 1, 1, 0.2, 0], "dead_slots": pytest.approx(1 / 6)}
    assert results["mask-entropy"].value == pytest.approx(scipy.stats.entropy(soft, axis=2, base=6).mean())
    assert results["identity-switches"].value == metrics.identity_switches(random_masks(), labels).mean
    for name in ("identity-switches", "slots-used", "mask-entropy"):
        assert (results[name].unit, results[name].num_units) == ("video", 5)
        assert results[name].options == {"mask_source": "file"}


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_dead_slots_are_those_of_all_episodes_however_many_are_read_at_once(tmp_path, truth, batch):
    source = write(tmp_path / "p.h5", masks=weights())
    result = score(truth, source, "slots-used", batch=batch)["slots-used"]
    assert result.details["dead_slots"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("asked", [{"masks"}, {"soft"}, {"masks", "soft"}, {"slots"}, {"frames", "depth"}, set()])
def test_files_give_exactly_what_is_asked_for_and_there(tmp_path, truth, asked):
    slots = np.random.default_rng(0).normal(size=(5, 3, 6, 4))
    source = FileSource(write(tmp_path / "p.h5", masks=weights(), slots=slots), "test")
    assert source.provides == {"masks", "soft", "slots"}
    with EpisodeFile(truth, needs_frames=False) as episodes:
        given = source.predict(episodes, "test", 1, 3, asked)
        assert set(source.predict(episodes, "test", 1, 3).outputs) == {"masks", "soft", "slots"}
    assert set(given.outputs) == asked & source.provides
    expected = {"masks": weights().argmax(2), "soft": weights(), "slots": slots.astype(np.float32)}
    for name, values in given.outputs.items():
        np.testing.assert_array_equal(values, expected[name][1:3])


def test_labels_do_not_tell_which_slots_are_dead(tmp_path, truth):
    labels = random_masks().astype(np.int64) * 1000
    labels[0, 0, 0, 0] = 7  # one pixel in three frames is too little
    result = score(truth, write(tmp_path / "p.h5", masks=labels), "slots-used")["slots-used"]
    assert (result.value, result.details) == (4, {})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_entropy_of_any_precision(tmp_path, truth, dtype):
    result = score(truth, write(tmp_path / "p.h5", masks=weights().astype(dtype)), "mask-entropy")["mask-entropy"]
    expected = scipy.stats.entropy(weights(), axis=2, base=6).mean()
    assert (result.value, result.num_units) == (pytest.approx(expected, abs=2e-3), 5)


def test_logits_and_labels_have_no_entropy(tmp_path, truth):
    rng = np.random.default_rng(0)
    for name, masks in (
        ("logits", rng.normal(size=(5, 3, 4, 8, 8))),
        ("positive", rng.random((5, 3, 4, 8, 8))),
        ("labels", random_masks()),
    ):
        source = write(tmp_path / f"{name}.h5", masks=masks)
        assert "mask-entropy" not in score(truth, source)
        with pytest.raises(InputError, match="no soft masks that are weights with sum 1"):
            score(truth, source, "mask-entropy")


def test_episodes_that_hold_no_weights_are_skipped_and_counted(tmp_path, truth):
    soft = weights()
    soft[3] *= 2
    soft[4, 0, 0, 0, 0] -= 1
    result = score(truth, write(tmp_path / "p.h5", masks=soft), "mask-entropy")["mask-entropy"]
    assert (result.num_units, result.num_skipped) == (3, 2)
    assert result.value == pytest.approx(scipy.stats.entropy(soft[:3], axis=2, base=6).mean())


def test_diagnostics_of_slots_need_no_true_masks(tmp_path):
    frames = np.zeros((5, 3, 8, 8, 3), np.uint8)
    framed = write_truth(tmp_path / "framed.h5", frames=frames)
    assert set(score(framed, write(tmp_path / "p.h5", masks=weights()))) == {"slots-used", "mask-entropy"}


# --- ids that hold within a frame -------------------------------------------------------------------------


def test_ids_of_frames_leave_out_what_follows_objects(tmp_path, truth):
    soft = write(tmp_path / "p.h5", masks=weights())
    firm = score(truth, soft, per_frame=True)
    with EpisodeFile(loosen(truth), needs_frames=False) as episodes:
        report = evaluate(FileSource(soft, "test"), episodes, "test")
        assert [result.metric for result in report.results] == ["slots-used", "mask-entropy"]
        assert set(report.left_out) == {"fg-ari", "ari", "miou", "mbo", "identity-switches"}
        assert all("`per_frame`" in reason for reason in report.left_out.values())
        assert json.loads(json.dumps(report.document(None)))["left_out"] == report.left_out
        frames = evaluate(FileSource(soft, "test"), episodes, "test", options=ScoringOptions(per_frame=True))
        assert set(frames.left_out) == {"identity-switches"}
        found = {result.metric: result for result in frames.results}
    assert set(found) == {"fg-ari", "ari", "miou", "mbo", "slots-used", "mask-entropy"}
    assert found["fg-ari"].value == firm["fg-ari"].value


@pytest.mark.parametrize("name", ["fg-ari", "ari", "miou", "mbo", "identity-switches", "probe"])
def test_what_follows_objects_is_refused_by_name(tmp_path, name):
    path = write_truth(tmp_path / "t.h5", **{"masks": random_masks(), "objects/x": np.zeros((5, 3, 3))})
    predictions = write(tmp_path / "p.h5", masks=random_masks(), slots=np.zeros((5, 3, 4, 2)))
    for options in ({}, {"clip_len": 2}):
        with pytest.raises(InputError, match=r"name objects within a frame only.*`per_frame`") as error:
            score(loosen(path), predictions, name, **options)
        assert "\n" not in str(error.value)


def test_nothing_left_says_why(tmp_path, truth):
    frames = write(tmp_path / "f.h5", slots=np.zeros((5, 3, 2, 4)))
    with pytest.raises(InputError, match="no metric can be computed"):
        score(loosen(truth), frames)


def test_reports_of_data_with_lasting_ids_leave_nothing_out(tmp_path, truth):
    with EpisodeFile(truth, needs_frames=False) as episodes:
        report = evaluate(FileSource(write(tmp_path / "p.h5", masks=weights()), "test"), episodes, "test")
    assert report.left_out == {}
    assert "left_out" not in report.document(None)
