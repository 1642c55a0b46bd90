"""What a report gathers: groups of seeds, curves, episodes by score, what fits, and runs that are not finished."""

import json
import re
import statistics

import numpy as np
import pytest
import torch

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.evaluation import TaskSource, evaluate
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reports.curves import _line, points_of, training_charts
from slotssm.experiments.reports.episodes import rank, run_video
from slotssm.experiments.reports.fitting import PLANS, Plan, fit
from slotssm.experiments.reports.recorded import group_by_seed, read_run
from slotssm.experiments.reports.report import write_report
from slotssm.experiments.reports.runs import RunsRequest
from slotssm.experiments.runs import load_run, start_run
from slotssm.report import Track, Video, embed
from slotssm.tasks import Outputs
from slotssm.training.checkpoint import Description
from slotssm.training.run import RunDirectory

EVIL = "</script><script>alert(1)</script>"


def train(folder, name, kind="tiny-oc", **changes):
    few = {"train": {"num_steps": 2, "log_every_steps": 1, "eval_every_steps": 2, "batch_size": 2}}
    config = override(preset(kind), few, "test").replace(**changes)
    data, run = ensure_own_data(config, folder / "data"), RunDirectory(folder / name)
    start_run(config, spec_of(config.data), data, run, "cpu", lambda report: None)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    runs = {f"seed{seed}": train(folder, f"seed{seed}", seed=seed) for seed in (0, 1)}
    return {**runs, "balls": train(folder, "balls", "tiny-balls"), "bcb": train(folder, "bcb", "tiny-bcb")}


def written(paths, folder, **request):
    out = folder / "report.html"
    found = write_report(paths, out, RunsRequest(num_episodes=2, **request), repr, force=True)
    return found, out.read_text(encoding="utf-8")


def test_runs_that_differ_only_in_their_seed_are_one_group(made):
    groups = group_by_seed([read_run(made[name]) for name in ("seed1", "balls", "seed0")])
    assert [[run.name for run in group.runs] for group in groups] == [["seed0", "seed1"], ["balls"]]
    charts = training_charts(groups)
    assert len(charts.keys) == 2 and {"loss (training)", "mse (validation)"} <= {chart.title for chart in charts.charts}


def test_curves_are_means_with_standard_deviation_over_seeds(made):
    points = [points_of(read_run(made[name]), "loss", "train") for name in ("seed0", "seed1")]
    line = _line(points, "solid", (1, 2, 3))
    values = np.array([[each[step] for each in points] for step in (1, 2)])
    np.testing.assert_allclose(line.y, values.mean(1))
    np.testing.assert_allclose(np.subtract(line.high, line.y), values.std(1, ddof=1))
    np.testing.assert_allclose(np.subtract(line.y, line.low), [statistics.stdev(pair) for pair in values.tolist()])


def test_worst_and_best_episodes_come_first(made):
    task, _, _ = load_run(made["seed0"])
    with EpisodeFile(made["seed0"].data()) as truth:
        ranking = rank(task, truth, "test", 4, "mse", lambda done, total: None)
        report = evaluate(TaskSource(task), truth, "test", ["mse"])
    values = report.results[0].episodes.values
    order = np.argsort(-values)
    assert [index for index, _ in ranking.chosen] == [*order[:2], order[-1], order[-2]]
    assert [why for _, why in ranking.chosen] == [
        "worst by mse",
        "2nd worst by mse",
        "best by mse",
        "2nd best by mse",
    ]
    assert ranking.scores["mse"] == dict(enumerate(values.tolist()))


def small_video(index, plan):
    frames = np.random.default_rng(index).integers(0, 255, (len(plan.frames(60)), 8, 8, 3), np.uint8)
    return Video(str(index), "", {}, plan.frames(60), [Track("input", frames)])


@pytest.mark.parametrize("episodes", [0.9, 1.5, 3.2, 6])
def test_what_does_not_fit_is_left_out_from_the_middle(episodes):
    smallest = embed(small_video(0, PLANS[-1])).num_bytes
    fitted = fit(6, small_video, int(episodes * smallest * 1.02))
    assert fitted.num_bytes <= episodes * smallest * 1.02
    assert fitted.places == sorted([0, 3, 1, 4, 2, 5][: int(episodes)])


def test_long_and_large_videos_are_thinned_out():
    assert Plan(5).frames(60) == [0, 15, 30, 44, 59]
    assert Plan(48).frames(6) == list(range(6))
    labels = np.arange(400 * 300).reshape(1, 400, 300)
    assert Plan(side_px=100).reducer((400, 300))(labels).shape == (1, 100, 75)


def test_the_page_stays_below_its_limit(made, tmp_path):
    whole, _ = written([made["seed0"].path], tmp_path)
    least = whole.num_bytes - 12_000
    out = tmp_path / "small.html"
    small = write_report([made["seed0"].path], out, RunsRequest(num_episodes=6), repr, largest_bytes=least)
    assert out.stat().st_size == small.num_bytes <= least
    assert any("left out" in text or "own pictures" in text for text in small.notes)


def test_a_canvas_is_a_mask_but_not_a_slot(made):
    """A task may have one more mask than slots, the last one for the background."""
    task, _, _ = load_run(made["seed0"])
    with EpisodeFile(made["seed0"].data()) as truth:
        ranking = rank(task, truth, "test", 1, None, lambda done, total: None)
        found = TaskSource(task).run(truth, "test", 0, 1)
        masks = torch.cat([found["masks"] * 0.3, 1 - 0.3 * found["masks"].sum(2, keepdim=True)], 2)
        painted = torch.cat([found["slot_frames"], found["slot_frames"][:, :, :1]], 2)
        parts = {**found, "masks": masks, "slot_frames": painted}
        task.predict_episode = lambda frames: Outputs(found.state, **parts)
        video = run_video(task, truth, "test", 0, "", ranking, Plan())
    names = [region.name for region in video.regions]
    assert names == [f"slot {k}" for k in range(found["slots"].shape[2])] + ["canvas"]
    assert (video.labels == len(names) - 1).all() and video.regions[-1].pictures is not None


@pytest.mark.parametrize("name", ["balls", "bcb"])
def test_other_tasks_show_truth_and_prediction(made, tmp_path, name):
    found, text = written([made[name].path], tmp_path)
    assert len(found.included["runs"][0]["episodes"]) == 2 and found.included["runs"][0]["metric"] == "mse"
    content = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text)[0])
    titles = [track["title"] for track in content["tracks"]]
    assert titles[0] == "input" and "prediction (context faded)" in titles


def test_an_unfinished_run_is_shown_as_far_as_it_got(made, tmp_path):
    config = made["seed0"].config()
    config = override(config, {"name": "x", "data": {"num_val": 0}, "train": {"eval_every_steps": 0}}, "test")
    run = RunDirectory(tmp_path / EVIL.replace("/", "_"))
    data = ensure_own_data(config, tmp_path / "data")
    run.create(Description(config, spec_of(config.data)), data, "0" * 64, "cpu")
    found, text = written([run.path], tmp_path)
    assert "no checkpoint yet" in text and "Nothing is logged yet." in text and "No scores are stored" in text
    assert text.count("<script>") == 1 and found.included["runs"][0]["episodes"] == []


def test_data_that_moved_cost_only_the_episodes(made, tmp_path):
    record = made["seed0"].record
    kept = record.read_text()
    try:
        record.write_text(kept.replace(json.loads(kept)["data"], str(tmp_path / "gone.h5")))
        found, text = written([made["seed0"].path], tmp_path)
    finally:
        record.write_text(kept)
    assert "do not exist" in text and found.notes
    found, _ = written([made["seed0"].path], tmp_path, data=made["seed0"].data(), split="val")
    assert found.included["runs"][0]["split"] == "val" and not found.notes


def test_a_data_set_shows_masks_and_properties(made, tmp_path):
    found, text = written([made["seed0"].data()], tmp_path)
    assert found.kind == "data" and len(found.included["episodes"]) == 2
    content = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text)[0])
    with EpisodeFile(made["seed0"].data()) as truth:
        masks, colors = truth.read("test", "masks", 0), truth.read("test", "objects/color", 0)
        names = truth.categories("test", "objects/color")
    ids = [int(number) for number in np.unique(masks) if number]
    assert [region["label"] for region in content["regions"]] == ids
    column = content["properties"]["columns"].index("color")
    assert [row[column] for row in content["properties"]["rows"]] == [names[colors[number - 1]] for number in ids]


def test_rows_are_labelled_with_settings_that_only_some_of_them_have(tmp_path):
    settings = ({"data": "easy"}, {"data": "table"}, {"data": "table", "training": "longer"})
    rows = [
        {
            "model": "savi",
            "setting": setting,
            "parameters": 10,
            "metrics": {"mse": {"mean": 0.5, "std": None, "values": {"0": 0.5}, "interval": [0.1, 0.9]}},
            "failed": {},
            "paper": None,
            "cells": ["a"],
        }
        for setting in settings
    ]
    result = {"experiment": "object-centric", "scale": "cpu", "slotssm": "1", "missing": [], "rows": rows}
    (tmp_path / "result.json").write_text(json.dumps({**result, "notes": [], "provenance": {}}))
    _, text = written([tmp_path], tmp_path)
    assert re.findall('<span title="(.*?)">', text) == ["easy: savi", "table: savi", "table, longer: savi"]


def test_a_reproduction_shows_rows_seeds_and_what_is_missing(tmp_path):
    def row(model, values):
        return {
            "model": model,
            "setting": {"data": EVIL},
            "parameters": 10,
            "metrics": {
                "mse": {
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "values": {str(seed): value for seed, value in enumerate(values)},
                    "interval": None if len(values) > 1 else [0.1, 0.9],
                }
            },
            "failed": {"2": EVIL},
            "paper": None,
            "cells": ["a"],
        }

    rows = [row("savi", [0.12345678, 0.3]), row("<b>", [0.5])]
    result = {"experiment": "object-centric", "scale": "cpu", "slotssm": "1", "missing": ["later-s1"], "rows": rows}
    (tmp_path / "result.json").write_text(json.dumps({**result, "notes": [EVIL], "provenance": {}}))
    found, text = written([tmp_path], tmp_path)
    assert found.included["missing"] == ["later-s1"]
    # that something is missing is said first, but what there is comes before the names, of which there may be many
    assert text.index("1 cell is not measured yet") < text.index("0.2117 ± 0.12") < text.index("later-s1")
    assert text.count("<script>") == 1 and "<b>" not in text
    assert [float(value) for value in re.findall(r'data-value="(0\.\d+)"', text)] == [
        each["metrics"]["mse"]["mean"] for each in rows
    ]
    assert "0.2117 ± 0.12" in text and "[0.1, 0.9]" in text


@pytest.mark.parametrize("content", ["[]", '{"rows": [1]}', '{"rows": [{"model": "a"}]}', "{"])
def test_a_damaged_result_is_named(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.json"):
        write_report([tmp_path], tmp_path / "r.html", RunsRequest(), repr)
