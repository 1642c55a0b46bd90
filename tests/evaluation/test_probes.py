"""Probes against a slow implementation of the protocol, and what must hold whatever the data."""

import itertools
import json

import h5py
import numpy as np
import pytest
import torch
from own_task import own_task
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, balanced_accuracy_score, mean_squared_error, r2_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from truth_files import axes_of, name_axes, write, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError, SlotSSMError
from slotssm.evaluation import FileSource, ScoringOptions, TaskSource, evaluate, probes
from slotssm.evaluation.probes import probe
from slotssm.evaluation.properties import Property, SlotRows, find_properties
from slotssm.experiments.presets import preset

VIDEOS, FRAMES, OBJECTS, SLOTS, WIDTH, SIZE = 14, 4, 3, 5, 8, 9
COLORS = ["red", "green", "blue"]


class Scene:
    """Objects in bands of three rows, each owned by a slot, and properties; every test changes what it needs.

    Slot `owner[e, n]` of video e has object n; where a band is not drawn the background's slot shines through.
    """

    def __init__(self, seed: int = 0, videos: int = VIDEOS, noise: float = 0.0):
        rng = np.random.default_rng(seed)
        self.visible = np.ones((videos, FRAMES, OBJECTS), np.uint16)
        self.position = rng.uniform(0, 64, (videos, FRAMES, OBJECTS, 2)).astype(np.float32)
        self.mass = rng.uniform(1, 2, (videos, OBJECTS)).astype(np.float32)
        self.color = rng.integers(3, size=(videos, OBJECTS)).astype(np.uint8)
        self.owner = np.stack([rng.permutation(SLOTS) for _ in range(videos)])
        self.masks = np.zeros((videos, FRAMES, SIZE, SIZE), np.uint8)
        self.labels = np.broadcast_to(self.owner[:, None, None, None, -1], self.masks.shape).astype(np.uint8)
        self.slots = rng.normal(size=(videos, FRAMES, SLOTS, WIDTH))
        mix = rng.normal(size=(6, WIDTH))
        for e, n in itertools.product(range(videos), range(OBJECTS)):
            band = slice(3 * n, 3 * n + 3)
            self.masks[e, :, band, :6] = n + 1
            self.labels[e, :, band, :7] = self.owner[e, n]
            kept = np.tile(np.r_[self.mass[e, n], np.eye(3)[self.color[e, n]]], (FRAMES, 1))
            told = np.concatenate([self.position[e, :, n] / 64, kept], axis=1) @ mix
            self.slots[e, :, self.owner[e, n]] = told + noise * rng.normal(size=told.shape)

    def write(self, folder, split="test", attrs=True, **more):
        """Truth and predictions."""
        objects = {"visible": self.visible, "position": self.position, "mass": self.mass, "color": self.color} | more
        named = {f"objects/{name}": values for name, values in objects.items() if values is not None}
        truth = write_truth(folder / "truth.h5", split, masks=self.masks, **named)
        if attrs:
            with h5py.File(truth, "r+") as file:
                for name in named:
                    kind = "categorical" if name == "objects/color" else "numeric"
                    file[f"{split}/{name}"].attrs["kind"] = kind
                if "objects/color" in named:
                    file[f"{split}/objects/color"].attrs["categories"] = json.dumps(COLORS)
        return truth, write(folder / "predictions.h5", split, masks=self.labels, slots=self.slots.astype(np.float32))


def run(truth, predictions, *names, batch=16, **options):
    """The results of the probes by property, `batch` episodes read at a time."""
    with EpisodeFile(truth, needs_frames=False) as episodes:
        source, options = FileSource(predictions, "test"), ScoringOptions(properties=names, **options)
        report = evaluate(source, episodes, "test", ["probe"], options, batch_episodes=batch)
    return {result.details["property"]: result for result in report.results}


def numbers(result):
    """A result as plain values, for comparison."""
    return json.loads(json.dumps(result.document(), allow_nan=False))


# --- the protocol, slowly -----------------------------------------------------------------------------------


def iou(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


def slow_rows(scene, values, per_frame):
    """Rows by loops, and matching by trying every assignment."""
    slots, targets, videos, num_objects, num_matched = [], [], [], 0, 0
    for e in range(len(scene.masks)):
        there = [n for n in range(OBJECTS) if scene.visible[e, :, n].any()]
        valid = scene.masks[e] != 255
        table = {
            (n, k): iou((scene.masks[e] == n + 1) & valid, (scene.labels[e] == k) & valid)
            for n in range(OBJECTS)
            for k in range(SLOTS)
        }
        best = max(
            itertools.permutations(range(SLOTS), OBJECTS),
            key=lambda slots: sum(table[n, k] for n, k in enumerate(slots)),
        )
        pairs = {n: best[n] for n in there if table[n, best[n]] > 0}
        num_objects += len(there)
        num_matched += len(pairs)
        for t, n in itertools.product(range(FRAMES), sorted(pairs)):
            if scene.visible[e, t, n]:
                slots.append(scene.slots[e, t, pairs[n]].astype(np.float32))
                targets.append(values[e, t, n] if per_frame else values[e, n])
                videos.append(e)
    return np.array(slots, float), np.array(targets), np.array(videos), num_matched / num_objects


def out_of_fold(model, slots, targets, videos):
    predicted = np.zeros_like(targets)
    for train, test in GroupKFold(5).split(slots, groups=videos):
        assert not set(videos[train]) & set(videos[test])
        found = model.fit(slots[train], targets[train]).predict(slots[test])
        predicted[test] = found.reshape(targets[test].shape)
    return predicted


@pytest.fixture
def awkward():
    """Noise, hidden and absent objects, an ignored region, a slot that owns nothing and an object that no slot has."""
    scene = Scene(seed=1, noise=0.3)
    scene.visible[:, 1, 0] = 0
    scene.visible[2, :, 1] = 0
    scene.masks[2][scene.masks[2] == 2] = 0
    scene.masks[:, :, 0, 0] = 255
    # objects 1 and 2 of these videos lie in one slot, which can be matched to one of them only
    for e in (4, 5):
        scene.labels[e, :, 3:9, :7] = scene.owner[e, 1]
        scene.masks[e, :, 6:, 5:] = 0
    return scene


def test_numbers_are_those_of_the_slow_protocol(awkward, tmp_path):
    found = run(*awkward.write(tmp_path))
    assert list(found) == ["color", "mass", "position"]
    for name, values, per_frame in (("position", awkward.position, True), ("mass", awkward.mass[..., None], False)):
        slots, targets, videos, coverage = slow_rows(awkward, values, per_frame)
        targets = targets.astype(float)
        result, details = found[name], found[name].details
        guess = out_of_fold(make_pipeline(StandardScaler(), Ridge()), slots, targets, videos)
        dummy = out_of_fold(DummyRegressor(), slots, targets, videos)
        assert result.value == details["r2"] == pytest.approx(r2_score(targets, guess), abs=1e-9)
        assert details["mse"] == pytest.approx(mean_squared_error(targets, guess), rel=1e-9)
        assert details["dummy_r2"] == pytest.approx(r2_score(targets, dummy), abs=1e-9)
        assert details["dummy_mse"] == pytest.approx(mean_squared_error(targets, dummy), rel=1e-9)
        assert details["r2_per_column"] == pytest.approx(r2_score(targets, guess, multioutput="raw_values"), abs=1e-9)
        assert details["coverage"] == coverage < 1
        assert (result.num_units, result.unit) == (len(slots), "row")
        assert result.num_units + result.num_skipped == awkward.visible.sum()
        assert result.num_skipped == 2 * FRAMES


def test_classes_are_those_of_the_slow_protocol(awkward, tmp_path):
    result = run(*awkward.write(tmp_path), "color")["color"]
    slots, targets, videos, coverage = slow_rows(awkward, awkward.color, False)
    guess = out_of_fold(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), slots, targets, videos)
    dummy = out_of_fold(DummyClassifier(strategy="most_frequent"), slots, targets, videos)
    assert result.value == result.details["accuracy"] == pytest.approx(accuracy_score(targets, guess))
    assert result.details["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, guess))
    assert result.details["dummy_accuracy"] == pytest.approx(accuracy_score(targets, dummy))
    assert result.details["dummy_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, dummy))
    assert result.details["rows_by_class"] == {name: int((targets == i).sum()) for i, name in enumerate(COLORS)}
    assert (result.details["num_classes"], result.details["num_videos"]) == (3, VIDEOS)
    assert result.details["coverage"] == coverage
    assert result.interval[0] < result.value < result.interval[1]


def test_another_split_can_be_what_probes_are_fitted_on(tmp_path):
    scored, fitted = Scene(seed=2, noise=0.3), Scene(seed=3, videos=6, noise=0.3)
    truth, predictions = scored.write(tmp_path)
    (tmp_path / "other").mkdir()
    for path, other in zip((truth, predictions), fitted.write(tmp_path / "other", "val"), strict=True):
        with h5py.File(path, "r+") as file, h5py.File(other) as source:
            source.copy("val", file)
    result = run(truth, predictions, "position", probe_split="val")["position"]
    train, targets, _, _ = slow_rows(fitted, fitted.position, True)
    test, true, _, _ = slow_rows(scored, scored.position, True)
    model = make_pipeline(StandardScaler(), Ridge()).fit(train, targets.astype(float))
    assert result.value == pytest.approx(r2_score(true, model.predict(test)), abs=1e-9)
    assert result.details["num_fit_rows"] == len(train)
    assert (result.options["probe_split"], result.options["num_folds"]) == ("val", 0)
    # the scored split by its name is the default
    default = run(truth, predictions, "position")["position"]
    assert numbers(run(truth, predictions, "position", probe_split="test")["position"]) == numbers(default)
    assert (default.options["probe_split"], default.options["num_folds"]) == ("test", 5)


# --- what slots know, and what they do not -------------------------------------------------------------------


def test_what_slots_encode_linearly_is_found_and_shuffled_slots_fall_to_the_dummy(tmp_path):
    found = run(*Scene(videos=40).write(tmp_path))
    assert found["position"].value > 0.999
    assert found["mass"].value > 0.99
    assert found["color"].value == found["color"].details["balanced_accuracy"] == 1
    for name in ("position", "mass"):
        details = found[name].details
        assert details["shuffled_r2"] < details["dummy_r2"] + 0.02
        assert details["dummy_r2"] == pytest.approx(0, abs=0.05)
        assert details["mse"] < 0.02 * details["dummy_mse"] < details["shuffled_mse"]
    assert found["color"].details["shuffled_accuracy"] < found["color"].details["dummy_accuracy"] + 0.1
    assert found["color"].details["shuffled_balanced_accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert all(result.details["converged"] for result in found.values())


def test_slots_that_know_nothing_do_no_better_than_the_dummy(tmp_path):
    scene = Scene(videos=40)
    scene.slots = np.random.default_rng(9).normal(size=scene.slots.shape)
    found = run(*scene.write(tmp_path))
    assert found["position"].value < found["position"].details["dummy_r2"] + 0.02
    assert found["color"].value < found["color"].details["dummy_accuracy"] + 0.1
    assert found["color"].details["balanced_accuracy"] == pytest.approx(1 / 3, abs=0.1)


def test_a_label_of_the_video_is_not_learnt_by_recognising_the_video(tmp_path):
    scene = Scene(videos=60)
    rng = np.random.default_rng(4)
    scene.color = rng.integers(3, size=(60, 1)).repeat(OBJECTS, 1).astype(np.uint8)
    scene.mass = rng.uniform(1, 2, (60, 1)).repeat(OBJECTS, 1).astype(np.float32)
    # slots tell which video it is, and nothing else
    scene.slots = np.eye(60)[:, None, None] + 0.01 * rng.normal(size=(60, FRAMES, SLOTS, 60))
    found = run(*scene.write(tmp_path))
    assert found["color"].value < found["color"].details["dummy_accuracy"] + 0.05
    assert found["color"].details["balanced_accuracy"] < 1 / 3 + 0.05
    assert found["mass"].value < found["mass"].details["dummy_r2"] + 0.05
    # divided by row, the same slots would seem to know everything
    slots, targets, _, _ = slow_rows(scene, scene.color, False)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(slots[::2], targets[::2])
    assert model.score(slots[1::2], targets[1::2]) > 0.95


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_names_of_slots_do_not_matter(awkward, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(probes, "MLP_STEPS", 20)
    before = run(*awkward.write(tmp_path), probe=kind)
    rng = np.random.default_rng(5)
    for e in range(VIDEOS):
        names = rng.permutation(SLOTS)
        awkward.labels[e] = names[awkward.labels[e]]
        awkward.slots[e] = awkward.slots[e][:, np.argsort(names)]
    after = run(*awkward.write(tmp_path), probe=kind)
    assert {name: numbers(result) for name, result in before.items()} == {
        name: numbers(result) for name, result in after.items()
    }


@pytest.mark.slow
def test_a_network_finds_what_a_linear_probe_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "MLP_STEPS", 500)
    scene = Scene(videos=60)
    scene.slots = np.random.default_rng(6).normal(size=(*scene.slots.shape[:3], 3))
    owned = np.take_along_axis(scene.slots, scene.owner[:, None, :OBJECTS, None], axis=2)
    more = {"product": owned[..., :1] * owned[..., 1:2], "same": (owned[..., 0] * owned[..., 1] > 0).astype(np.uint8)}
    truth, predictions = scene.write(tmp_path, attrs=False, **more)
    linear, network = (run(truth, predictions, *more, probe=kind) for kind in ("linear", "mlp"))
    assert linear["product"].value < 0.1 < 0.8 < network["product"].value
    assert linear["same"].value < 0.65 < 0.85 < network["same"].value
    assert network["product"].options["probe"] == "mlp"
    assert network["product"].details["shuffled_r2"] < 0.1


def test_results_do_not_depend_on_the_batches(awkward, tmp_path, monkeypatch):
    paths = awkward.write(tmp_path)
    before = run(*paths, "position", "color")
    read, predict = [], FileSource.predict
    monkeypatch.setattr(
        FileSource, "predict", lambda self, *where: read.append(where[3] - where[2]) or predict(self, *where)
    )
    after = run(*paths, "position", "color", batch=3)
    assert max(read) == 3
    assert sum(read) == len(awkward.masks)
    assert [numbers(result) for result in before.values()] == [numbers(result) for result in after.values()]


def test_soft_masks_and_masks_of_another_size(tmp_path):
    scene = Scene(noise=0.3)
    truth, predictions = scene.write(tmp_path)
    expected = run(truth, predictions, "position")["position"]
    one_hot = (scene.labels[:, :, None] == np.arange(SLOTS)[:, None, None]).astype(np.float32)
    doubled = one_hot.repeat(2, axis=3).repeat(2, axis=4)
    soft = write(tmp_path / "soft.h5", masks=doubled, slots=scene.slots.astype(np.float32))
    assert numbers(run(truth, soft, "position")["position"]) == numbers(expected)


def test_objects_are_not_probed_from_a_canvas(awkward, tmp_path):
    # the background's slot becomes the canvas: label and mask K, which no object may be matched to
    background = awkward.owner[:, -1][:, None, None, None]
    awkward.labels = np.where(awkward.labels == background, SLOTS, awkward.labels).astype(np.uint8)
    truth, _ = awkward.write(tmp_path)
    one_hot = (awkward.labels[:, :, None] == np.arange(SLOTS + 1)[:, None, None]).astype(np.float32)
    soft = write(tmp_path / "soft.h5", masks=one_hot, slots=awkward.slots.astype(np.float32))
    result = run(truth, soft, "position")["position"]
    slots, targets, videos, coverage = slow_rows(awkward, awkward.position, True)
    guess = out_of_fold(make_pipeline(StandardScaler(), Ridge()), slots, targets.astype(float), videos)
    assert result.value == pytest.approx(r2_score(targets, guess), abs=1e-9)
    assert result.details["coverage"] == coverage
    # labels alone do not tell a canvas from a mistake
    with pytest.raises(InputError, match="slot indices, 0 to 4"):
        run(truth, tmp_path / "predictions.h5", "position")


# --- properties as they come ---------------------------------------------------------------------------------


def test_a_property_of_every_frame_and_of_the_whole_video_are_the_same_if_it_does_not_change(tmp_path):
    scene = Scene(noise=0.3)
    one, each = (
        run(*scene.write(tmp_path, mass=mass), "mass")["mass"]
        for mass in (scene.mass, np.repeat(scene.mass[:, None], FRAMES, axis=1))
    )
    assert numbers(one) == numbers(each)


def test_without_visible_the_masks_say_what_is_seen(tmp_path):
    scene = Scene(noise=0.3)
    scene.visible[:, 2, 1] = scene.visible[3, :, 0] = 0
    for e, t, n in np.argwhere(scene.visible == 0):
        scene.masks[e, t][scene.masks[e, t] == n + 1] = 0
    told = run(*scene.write(tmp_path), "position")["position"]
    scene.visible = None
    assert numbers(run(*scene.write(tmp_path), "position")["position"]) == numbers(told)


def test_unknown_values_are_left_out_and_counted(tmp_path):
    scene = Scene(noise=0.3)
    whole = run(*scene.write(tmp_path), "mass", "position")
    scene.position[0, 1, 2, 1] = np.nan
    scene.position[3, :, 0, 0] = np.inf
    found = run(*scene.write(tmp_path), "mass", "position")
    assert found["position"].num_skipped == 1 + FRAMES
    assert found["position"].num_units == VIDEOS * FRAMES * OBJECTS - 1 - FRAMES
    assert numbers(found["mass"]) == numbers(whole["mass"])


def test_without_attributes_fractions_are_numbers_and_the_rest_are_classes(tmp_path):
    scene = Scene()
    names = np.array([b"cube", b"ball", b"cone"])[scene.color]
    more = {"kind": names, "heavy": scene.mass > 1.5, "level": scene.color.astype(int) - 1}
    found = run(*scene.write(tmp_path, attrs=False, **more))
    assert {name: result.details["kind"] for name, result in found.items()} == {
        "color": "categorical",
        "heavy": "categorical",
        "kind": "categorical",
        "level": "categorical",
        "mass": "numeric",
        "position": "numeric",
    }
    assert set(found["kind"].details["rows_by_class"]) == {"cube", "ball", "cone"}
    assert set(found["level"].details["rows_by_class"]) == {"-1", "0", "1"}
    assert found["kind"].value == found["level"].value == found["color"].value == 1


def test_columns_that_do_not_vary_have_no_part_in_the_value(tmp_path):
    scene = Scene(noise=0.3)
    on_the_floor = np.concatenate([scene.position, np.full((*scene.position.shape[:3], 1), 0.7)], axis=3)
    plane = run(*scene.write(tmp_path), "position")["position"]
    space = run(*scene.write(tmp_path, position=on_the_floor.astype(np.float32)), "position")["position"]
    assert space.value == pytest.approx(plane.value, abs=1e-12)
    assert space.interval == pytest.approx(plane.interval, abs=1e-12)
    assert space.details["r2_per_column"][2] is None
    assert space.details["mse"] == pytest.approx(plane.details["mse"] * 2 / 3)


# --- how much is fitted on -----------------------------------------------------------------------------------


def test_many_rows_are_thinned_evenly_and_all_are_scored(monkeypatch):
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(12), rng.integers(5, 40, 12))
    slots = rng.normal(size=(len(videos), 4)).astype(np.float32)
    rows = SlotRows(slots, videos, {"x": slots[:, :1] + rng.normal(size=(len(slots), 1))}, len(slots), 12, 12)
    number = Property("x", "numeric", "", ())
    whole = probe(rows, number, "linear", 0)
    monkeypatch.setattr(probes, "MAX_FIT_ROWS", 60)
    thinned, again, other = (probe(rows, number, "linear", seed) for seed in (0, 0, 1))
    assert thinned.num_rows == whole.num_rows == len(videos)
    assert thinned.details["num_fit_rows"] <= 60 < whole.details["num_fit_rows"]
    assert thinned.options["max_fit_rows"] == 60
    assert thinned == again
    assert thinned.value != other.value
    train = rng.permutation(len(videos))
    kept = probes._subsample(train, videos, 0)
    assert set(kept) <= set(train)
    assert len(set(kept)) == len(kept)
    np.testing.assert_array_equal(np.bincount(videos[kept], minlength=12), 5)
    monkeypatch.setattr(probes, "MAX_FIT_ROWS", 3)
    np.testing.assert_array_equal(np.bincount(videos[probes._subsample(train, videos, 0)], minlength=12), 1)


def test_every_row_of_a_class_of_its_own_is_no_failure():
    slots = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    rows = SlotRows(slots, np.arange(60), {"name": np.arange(60)}, 60, 60, 60)
    assert probe(rows, Property("name", "categorical", "", ()), "linear", 0).value == 0


# --- nothing to score ----------------------------------------------------------------------------------------


def constant(scene):
    scene.mass[:] = 5.68
    scene.color[:] = 1


def nothing_visible(scene):
    scene.visible[:] = 0


def no_overlap(scene):
    # no object has a pixel outside the ignored region
    scene.masks[:] = 255


@pytest.mark.parametrize(
    ("spoil", "videos", "reasons", "coverage"),
    [
        (constant, VIDEOS, ("all rows are of one class (green)", "the same in all rows"), 1),
        (nothing_visible, VIDEOS, ("no slot was matched",) * 2, None),
        (no_overlap, VIDEOS, ("no slot was matched",) * 2, 0),
        (lambda scene: None, 1, ("too few videos",) * 2, 1),
    ],
)
def test_what_cannot_be_scored_is_null_with_its_reason(tmp_path, spoil, videos, reasons, coverage):
    scene = Scene(videos=videos)
    spoil(scene)
    found = run(*scene.write(tmp_path), "color", "mass")
    for (name, result), reason in zip(found.items(), reasons, strict=True):
        assert (result.value, result.interval) == (None, None), name
        assert reason in result.details["reason"]
        assert result.details["coverage"] == coverage
        assert (result.num_units, result.num_skipped) == (0, scene.visible.sum())
        told = numbers(result)
        keys = ("accuracy", "balanced_accuracy") if name == "color" else ("r2", "mse")
        assert [told[prefix + key] for prefix in ("", "dummy_", "shuffled_") for key in keys] == [None] * 6


def test_names_of_objects_are_not_probed(tmp_path, monkeypatch):
    scene = Scene()
    names = np.arange(VIDEOS * OBJECTS).reshape(VIDEOS, OBJECTS)
    found = run(*scene.write(tmp_path, name=names, attrs=False), "name", "color")
    # every object is of a class of its own, which no other video has
    assert found["name"].value == found["name"].details["balanced_accuracy"] == 0
    monkeypatch.setattr(probes, "MAX_CLASSES", 3)
    found = run(*scene.write(tmp_path, name=names, attrs=False), "name", "color")
    assert found["name"].value is None
    assert "42 classes exceed the limit of 3" in found["name"].details["reason"]
    assert found["color"].value == 1


@pytest.mark.parametrize("videos", [2, 3])
def test_few_videos_give_few_folds_and_a_fold_of_one_class_is_no_failure(tmp_path, videos):
    scene = Scene(videos=videos)
    scene.color[:] = 0
    scene.color[0] = 1
    found = run(*scene.write(tmp_path))
    assert found["position"].options["num_folds"] == videos
    if videos == 2:
        assert found["color"].value is None
        assert found["color"].details["reason"] == "the rows to fit on are all of one class"
    else:
        assert found["color"].value <= 2 / 3
        assert found["color"].details["balanced_accuracy"] <= 0.5


def test_one_frame_and_one_object_still_give_a_number(tmp_path):
    scene = Scene(videos=6)
    scene.visible[:] = 0
    scene.visible[:, 0, 0] = 1
    found = run(*scene.write(tmp_path), probe="mlp")
    assert (found["position"].num_units, found["position"].num_skipped) == (6, 0)
    assert np.isfinite([found["position"].value, found["mass"].value]).all()


# --- refusals ------------------------------------------------------------------------------------------------


def change(name, values, file="predictions"):
    def spoil(paths):
        with h5py.File(paths[file == "predictions"], "r+") as opened:
            old = opened[f"test/{name}"][...]
            del opened[f"test/{name}"]
            if values is not None:
                opened[f"test/{name}"] = values(old)
                if file == "truth":
                    name_axes(opened[f"test/{name}"], axes_of(name, opened[f"test/{name}"].ndim))

    return spoil


def describe(**attrs):
    def spoil(paths):
        with h5py.File(paths[0], "r+") as opened:
            opened["test/objects/mass"].attrs.update(attrs)

    return spoil


def with_one_nan(slots):
    slots[3, 1, 2, 0] = np.nan
    return slots


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("slots", None), "the predictions have no slots"),
        (change("slots", with_one_nan), "test/slots holds values that are not finite numbers"),
        (change("slots", lambda x: x.astype(float) * 1e300), "test/slots holds values that are not finite numbers"),
        (change("slots", lambda x: x[..., 0]), "must be numbers [E, T, K, D]"),
        (change("slots", lambda x: x[:, :-1]), "slots of 3 frames cannot be probed with 4 frames"),
        (change("slots", lambda x: x[:, :, :-2]), "labels from 0 to 4 and there are 3 slots"),
        (change("masks", lambda x: x.astype(int) - 1), "labels from -1 to 3"),
        (change("masks", lambda x: np.ones((*x.shape[:2], 7, *x.shape[2:]), np.float32)), "5 slots, test/masks has 7"),
        (change("masks", lambda x: x + 1, "truth"), "name object 4, test/objects has 3"),
        (change("objects", None, "truth"), "has no test/objects"),
        (change("objects/mass", lambda x: x[:, :2], "truth"), "differ in their number of objects (color 3, mass 2"),
        (
            change("objects/mass", lambda x: x[:, 0], "truth"),
            "properties of objects have episode, object or episode, time, object first",
        ),
        (change("objects/mass", lambda x: np.zeros((len(x), 4, 3, 0)), "truth"), "numeric and has 0 columns"),
        (change("objects/mass", lambda x: np.full(x.shape, b"x"), "truth"), "categorical"),
        (describe(kind="nominal"), "is of kind 'nominal'; it must be categorical or numeric"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, spoil, message):
    paths = Scene().write(tmp_path)
    if message == "has no test/objects":
        with h5py.File(paths[0], "r+") as file:
            del file["test/objects"]
    else:
        spoil(paths)
    if message == "categorical":
        # bytes are classes, unless somebody says otherwise
        assert run(*paths)["mass"].details["kind"] == "categorical"
        describe(kind="numeric")(paths)
        message = "is declared numeric but holds |S1"
    with pytest.raises(InputError) as refusal:
        run(*paths)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"properties": ("colour",)}, "did you mean color?"),
        ({"properties": ("zzz",)}, "there are color, mass, position, visible"),
        ({"probe_split": "val"}, "`probe_split` val"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, options, message):
    truth, predictions = Scene().write(tmp_path)
    with EpisodeFile(truth, needs_frames=False) as episodes, pytest.raises(InputError) as refusal:
        evaluate(FileSource(predictions, "test"), episodes, "test", ["probe"], ScoringOptions(**options))
    assert message in str(refusal.value)


def test_splits_whose_labels_mean_different_things_are_refused(tmp_path):
    truth, predictions = Scene().write(tmp_path)
    with h5py.File(truth, "r+") as file:
        file.copy("test", "val")
        file["val/objects/color"].attrs["categories"] = json.dumps(COLORS[::-1])
    with pytest.raises(InputError, match="other kinds, units or categories"):
        run(truth, predictions, probe_split="val")
    with pytest.raises(InputError, match="has no split 'val'"):
        run(truth, predictions, "mass", probe_split="val")


def test_a_file_with_nothing_but_visible_has_nothing_to_probe(tmp_path):
    scene = Scene()
    truth, _ = scene.write(tmp_path, position=None, mass=None, color=None)
    with EpisodeFile(truth, needs_frames=False) as file:
        with pytest.raises(InputError, match="no property of objects to probe"):
            find_properties(file, "test")
        assert [found.name for found in find_properties(file, "test", ["visible"])] == ["visible"]


# --- a trained task ------------------------------------------------------------------------------------------


@pytest.fixture
def with_frames(tmp_path):
    scene = Scene(videos=5)
    rng = np.random.default_rng(0)
    masks = np.zeros((5, FRAMES, 16, 16), np.uint8)
    masks[..., :SIZE, :SIZE] = scene.masks
    frames = rng.integers(0, 256, (5, FRAMES, 16, 16, 3), dtype=np.uint8)
    path = write_truth(
        tmp_path / "t.h5",
        frames=frames,
        masks=masks,
        **{"objects/position": scene.position, "objects/mass": scene.mass},
    )
    with EpisodeFile(path) as file:
        yield file


def test_a_tasks_slots_are_those_of_its_masks(with_frames, tmp_path):
    task = own_task(preset("tiny-oc"))
    source = TaskSource(task)
    with torch.inference_mode():
        prediction = task.eval().predict(torch.from_numpy(with_frames.read("test", "frames")))
    task.train()
    given = source.predict(with_frames, "test", 0, 5, {"slots"})
    assert set(given.outputs) == {"slots"}
    np.testing.assert_array_equal(given["slots"], prediction["slots"].numpy())
    saved = write(tmp_path / "p.h5", masks=prediction["masks"].numpy(), slots=prediction["slots"].numpy())
    report = evaluate(source, with_frames, "test", ["probe", "mse"])
    by_file = run(with_frames.path, saved)
    assert [result.name for result in report.results] == ["probe/mass", "probe/position", "mse"]
    for result in report.results[:2]:
        other = by_file[result.details["property"]]
        assert result.value == pytest.approx(other.value, abs=1e-6)
        assert (result.options["mask_source"], other.options["mask_source"]) == ("decoder", "file")
    assert set(report.values()) == {"probe/mass", "probe/position", "mse"}


def test_probes_are_fitted_only_when_asked_for(with_frames):
    source = TaskSource(own_task(preset("tiny-oc")))
    assert "probe" not in {result.metric for result in evaluate(source, with_frames, "test").results}


def test_slots_of_damaged_weights_are_refused(with_frames):
    task = own_task(preset("tiny-oc"))
    with torch.no_grad():
        next(task.model.parameters()).fill_(torch.nan)
    with pytest.raises(SlotSSMError, match="not finite"):
        evaluate(TaskSource(task), with_frames, "test", ["probe"])


def test_progress_counts_the_episodes_of_both_splits(tmp_path):
    paths = Scene(videos=20).write(tmp_path)
    for path in paths:
        with h5py.File(path, "r+") as file:
            file.copy("test", "val")
    told = []
    with EpisodeFile(paths[0], needs_frames=False) as episodes:
        options = ScoringOptions(probe_split="val")
        source = FileSource(paths[1], "test")
        evaluate(source, episodes, "test", ["probe"], options, on_progress=lambda *seen: told.append(seen))
    assert {total for _, total in told} == {40}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[0][0] == 0
    assert told[-1][0] == 40
