import json

import h5py
import numpy as np
import pytest
import torch
from truth_files import random_masks, score, write, write_truth

from slotssm import metrics
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions, evaluate

# the package's function of the same name hides the module

SEGMENTATION = ("fg-ari", "ari", "miou", "mbo")
DIAGNOSTICS = {"identity-switches", "slots-used"}


@pytest.fixture
def truth(tmp_path):
    return write_truth(tmp_path / "truth.h5", masks=random_masks())


@pytest.fixture
def predictions(tmp_path):
    return write(tmp_path / "predictions.h5", masks=random_masks(seed=1))


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[0, 1, 2, 3], [3, 0, 1, 2], [0, 200, 17, 255]])
def test_perfect_and_permuted_predictions_score_one(tmp_path, truth, names):
    labels = np.array(names, np.uint8)[random_masks()]
    results = score(truth, write(tmp_path / "p.h5", masks=labels))
    assert set(results) == {*SEGMENTATION, *DIAGNOSTICS}
    assert results["identity-switches"].value == 0
    for name in SEGMENTATION:
        result = results[name]
        assert result.value == 1, name
        assert (result.num_units, result.num_skipped, result.unit) == (5, 0, "video"), name
        assert result.interval == (1, 1), name


def test_names_permuted_in_each_video_score_one_but_not_within_a_video(tmp_path, truth):
    rng = np.random.default_rng(0)
    by_video = np.stack([rng.permutation(4)[video] for video in random_masks()])
    by_frame = np.stack([[np.roll(range(4), t)[frame] for t, frame in enumerate(video)] for video in random_masks()])
    videos, frames = write(tmp_path / "v.h5", masks=by_video), write(tmp_path / "f.h5", masks=by_frame)
    assert score(truth, videos, "fg-ari")["fg-ari"].value == 1
    assert score(truth, frames, "fg-ari")["fg-ari"].value < 0.2
    assert score(truth, frames, "fg-ari", per_frame=True)["fg-ari"].value == 1


def test_values_are_those_of_the_metrics(truth, predictions):
    results, pair = score(truth, predictions), (random_masks(), random_masks(seed=1))
    for name, metric in zip(SEGMENTATION, (metrics.fg_ari, metrics.ari, metrics.miou, metrics.mbo), strict=True):
        expected = metric(*pair)
        assert results[name].value == pytest.approx(expected.mean, abs=1e-12)
        assert results[name].interval == pytest.approx(expected.interval(0), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "metric"),
    [
        ("fg-ari", {"per_frame": True}, lambda t, p: metrics.fg_ari(t, p, per_frame=True)),
        ("fg-ari", {"clip_len": 2}, lambda t, p: metrics.fg_ari(t, p, clip_len=2)),
        ("fg-ari", {"skip_frames": 1}, lambda t, p: metrics.fg_ari(t, p, skip_frames=1)),
        ("fg-ari", {"empty": "one"}, lambda t, p: metrics.fg_ari(t, p, empty="one")),
        ("miou", {"per_frame": True}, lambda t, p: metrics.miou(t, p, per_frame=True)),
        ("miou", {"include_background": True}, lambda t, p: metrics.miou(t, p, include_background=True)),
        ("miou", {"average": "object"}, lambda t, p: metrics.miou(t, p, average="object")),
        ("mbo", {"include_background": True}, lambda t, p: metrics.mbo(t, p, include_background=True)),
    ],
)
def test_options_reach_the_metric_and_are_stated(tmp_path, predictions, name, options, metric):
    masks = random_masks()
    masks[1] = 0
    masks[2, 0] = 0
    # fewer objects in one video, so that means over objects and over videos differ
    masks[3][masks[3] > 1] = 0
    result = score(write_truth(tmp_path / "t.h5", masks=masks), predictions, name, **options)[name]
    expected = metric(masks, random_masks(seed=1))
    assert (result.value, result.unit) == (pytest.approx(expected.mean, abs=1e-12), expected.unit)
    assert (result.num_units, result.num_skipped) == (expected.num_units, expected.num_skipped)
    assert {key: result.options[key] for key in options} == options


def test_overlap_matching_is_never_called_miou(truth, predictions):
    (result,) = score(truth, predictions, "miou", matching="overlap").values()
    assert result.metric == "mbo"
    assert result.value == pytest.approx(metrics.mbo(random_masks(), random_masks(seed=1)).mean)
    assert set(score(truth, predictions, matching="overlap")) == {"fg-ari", "ari", "mbo", *DIAGNOSTICS}


def test_an_index_that_counts_the_background_is_never_called_fg_ari(truth, predictions):
    (result,) = score(truth, predictions, "fg-ari", include_background=True).values()
    assert result.metric == "ari"
    assert result.value == pytest.approx(metrics.ari(random_masks(), random_masks(seed=1)).mean)
    assert "include_background" not in result.options
    assert set(score(truth, predictions, include_background=True)) == {"ari", "miou", "mbo", *DIAGNOSTICS}


def test_soft_masks_become_hard_by_argmax(tmp_path, truth, predictions):
    hard = random_masks(seed=1)
    soft = np.random.default_rng(2).random((5, 3, 4, 8, 8)) * 0.3
    np.put_along_axis(soft, hard[:, :, None].astype(int), 0.4, axis=2)
    for dtype in (np.float16, np.float32, np.float64):
        source = write(tmp_path / f"{np.dtype(dtype)}.h5", masks=soft.astype(dtype))
        assert score(truth, source)["fg-ari"].value == score(truth, predictions)["fg-ari"].value


def test_logits_in_bfloat16_are_scored(tmp_path, truth):
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(5, 3, 4, 8, 8)) * 5).bfloat16()
    # numpy has no such type; HDF5 stores any layout of bits, and whoever reads it widens it
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    path = tmp_path / "p.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(tuple(logits.shape))
        dataset = h5py.Dataset(h5py.h5d.create(file.create_group("test").id, b"masks", kind, space))
        dataset[...] = logits.float().numpy()
        assert dataset.id.get_storage_size() == 2 * logits.numel()
    expected = metrics.fg_ari(random_masks(), logits.double().numpy().argmax(2))
    assert score(truth, path, "fg-ari")["fg-ari"].value == expected.mean


def test_a_single_soft_slot_is_one_cluster(tmp_path, truth):
    source = write(tmp_path / "p.h5", masks=np.full((5, 3, 1, 8, 8), 0.2))
    assert score(truth, source, "fg-ari")["fg-ari"].value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_masks_of_another_size_are_scored_at_the_truths(tmp_path, soft):
    coarse = random_masks(size=4)
    fine = coarse.repeat(4, 2).repeat(4, 3)
    truth = write_truth(tmp_path / "t.h5", masks=fine)
    stored = np.eye(4)[coarse].transpose(0, 1, 4, 2, 3) if soft else coarse
    assert score(truth, write(tmp_path / "p.h5", masks=stored), "miou")["miou"].value == 1
    # the other way round the truth keeps its resolution too
    assert score(write_truth(tmp_path / "c.h5", masks=coarse), write(tmp_path / "f.h5", masks=fine))["miou"].value == 1


def test_ignored_pixels_do_not_count(tmp_path, truth):
    masks, wrong = random_masks(), random_masks()
    masks[:, :, :3], wrong[:, :, :3] = 255, 1
    results = score(write_truth(tmp_path / "t.h5", masks=masks), write(tmp_path / "p.h5", masks=wrong))
    assert all(results[name].value == 1 for name in SEGMENTATION)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_results_do_not_depend_on_how_many_episodes_are_read_at_once(tmp_path, predictions, batch):
    masks = random_masks()
    masks[1] = 0
    truth = write_truth(tmp_path / "t.h5", masks=masks)
    expected = {name: result.document() for name, result in score(truth, predictions).items()}
    found = score(truth, predictions, batch=batch)
    assert {name: result.document() for name, result in found.items()} == expected


def test_only_the_first_episodes_can_be_scored(truth, predictions):
    result = score(truth, predictions, "fg-ari", num_episodes=2)["fg-ari"]
    assert result.value == pytest.approx(metrics.fg_ari(random_masks()[:2], random_masks(seed=1)[:2]).mean)
    assert result.num_units == 2


# --- report -----------------------------------------------------------------------------------------------


def test_nothing_scored_is_null(tmp_path, predictions):
    truth = write_truth(tmp_path / "t.h5", masks=np.zeros((5, 3, 8, 8), np.uint8))
    result = score(truth, predictions, "fg-ari")["fg-ari"]
    assert (result.value, result.interval, result.num_units, result.num_skipped) == (None, None, 0, 5)
    text = json.loads(json.dumps(result.document(), allow_nan=False))
    assert text["value"] is None
    assert text["interval"] is None


def test_report_has_the_documented_shape(truth, predictions):
    told = []
    with EpisodeFile(truth, needs_frames=False) as episodes:
        names = ["miou", "fg-ari", "miou"]
        report = evaluate(
            FileSource(predictions, "test"), episodes, "test", names, on_progress=lambda *done: told.append(done)
        )
    document = json.loads(json.dumps(report.document("runs/x"), allow_nan=False))
    assert document.items() >= {"run": "runs/x", "data": str(truth), "split": "test", "num_episodes": 5}.items()
    assert [result["metric"] for result in document["results"]] == ["miou", "fg-ari"]
    for result in document["results"]:
        assert result.keys() == {"metric", "value", "unit", "num_units", "num_skipped", "options", "interval"}
        assert result["interval"][0] <= result["value"] <= result["interval"][1]
        assert result["options"]["mask_source"] == "file"
    assert report.values() == {result["metric"]: result["value"] for result in document["results"]}
    assert (told[0], told[-1]) == ((0, 5), (5, 5))


# --- refusals ---------------------------------------------------------------------------------------------


def refused(truth, predictions, *names, **options) -> str:
    with pytest.raises(InputError) as error:
        score(truth, predictions, *names, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_unknown_metrics_are_refused_with_the_nearest(truth, predictions):
    assert "did you mean fg-ari?" in refused(truth, predictions, "fgari")
    assert "did you mean miou?" in refused(truth, predictions, "mious")
    assert "there are fg-ari, ari" in refused(truth, predictions, "xyzzy")


def test_metrics_that_the_data_cannot_serve_are_refused(tmp_path, truth, predictions):
    message = refused(truth, predictions, "fg-ari", "mse")
    assert f"`metric` mse cannot be computed: {truth} has no test/frames" in message
    assert "possible here: fg-ari, ari, miou, mbo" in message
    frames = np.zeros((5, 3, 8, 8, 3), np.uint8)
    framed = write_truth(tmp_path / "framed.h5", frames=frames, masks=random_masks())
    assert "the predictions have no frames" in refused(framed, predictions, "mse")
    assert "is not a file of Blinking Color Balls (it has no rule and palette)" in refused(
        framed, predictions, "color-accuracy"
    )
    assert "no metric can be computed" in refused(framed, write(tmp_path / "s.h5", slots=np.zeros((5, 3, 2, 4))))


def test_files_that_do_not_belong_together_are_refused(tmp_path, truth, predictions):
    fewer = write(tmp_path / "p.h5", masks=random_masks(num=4))
    assert "has 4 episodes in test" in refused(truth, fewer)
    short = write(tmp_path / "s.h5", masks=random_masks(frames=2))
    assert f"{short}: test/masks has 2 frames, {truth} has 3" in refused(truth, short)
    floats = write(tmp_path / "f.h5", masks=random_masks().astype(float))
    assert "must be integers [E, T, H, W] or soft" in refused(truth, floats)
    last = write(tmp_path / "l.h5", masks=np.zeros((5, 3, 8, 8, 4), np.float32))
    assert "look like [E, T, H, W, K]" in refused(truth, last)
    assert "has no split 'test'; it has val" in refused(truth, write(tmp_path / "v.h5", "val", masks=random_masks()))
    other = write_truth(tmp_path / "t.h5", "val", masks=random_masks())
    assert "has no split 'test'; it has val" in refused(other, predictions)
    assert "has no episodes" in refused(write_truth(tmp_path / "e.h5", masks=random_masks()[:0]), predictions)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("miou", {"empty": "one"}, "`empty` changes nothing of miou here; leave it out, or score fg-ari or ari"),
        ("fg-ari", {"average": "object"}, "`average` changes nothing of fg-ari here"),
        ("fg-ari", {"matching": "overlap"}, "`matching` changes nothing of fg-ari here"),
        ("slots-used", {"per_frame": True}, "`per_frame` changes nothing of slots-used here"),
        ("slots-used", {"conventions": ("all",)}, "`conventions` changes nothing of slots-used here; leave it out"),
        ("fg-ari", {"probe": "mlp"}, "`probe` changes nothing of fg-ari here; leave it out, or score probe"),
        ("fg-ari", {"properties": ("color",)}, "`properties` changes nothing of fg-ari here"),
        ("fg-ari", {"mask_source": "attention"}, "`mask_source` changes nothing of fg-ari here; leave it out"),
    ],
)
def test_options_that_change_nothing_are_refused(truth, predictions, name, options, message):
    assert message in refused(truth, predictions, name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_frame": True, "clip_len": 6}, "`per_frame` and `clip_len` exclude each other"),
        ({"skip_frames": -1}, "must not be negative"),
        ({"empty": "zero"}, "`empty` zero must be one of skip, one"),
        ({"mask_source": "encoder"}, "`mask_source` encoder must be one of decoder, attention"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ScoringOptions(**options)
