"""Experiments of the paper cell by cell: fair, complete, and made once."""

import csv
import itertools
import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
from pixel_colors import distinct_colors

from slotssm.config import RunConfig
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments import paper_numbers, presets
from slotssm.experiments.datasets import own_data_path
from slotssm.experiments.reproductions.cells import TrainingCell, read_record, record_path
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import (
    DEPTH_MODELS,
    MODULAR_MODELS,
    OBJECT_MODELS,
    RESIDUAL,
    SEQUENCE_MODELS,
    SNITCH_MODELS,
    VARIANTS,
)
from slotssm.experiments.reproductions.reproduce import (
    chosen_cells,
    default_folder,
    reproduce,
)
from slotssm.experiments.reproductions.studies import long_context
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS, experiment_of
from slotssm.experiments.reproductions.studies.efficiency import EfficiencyCell
from slotssm.plotting import read_picture

SCALES = [(name, scale) for name, experiment in EXPERIMENTS.items() for scale in experiment.scales]
TRAINED = [(name, scale) for name, scale in SCALES if name != "efficiency"]
PAIRS = {
    "long-context": Choice("tiny", ("slotssm", "single-state-ssm")),
    "video-prediction": Choice("tiny", ("slotssm", "rim"), seeds=(0, 1)),
    "efficiency": Choice("tiny", ("slotssm", "slot-transformer"), lengths=(10,)),
    "modularity": Choice("tiny", ("slotssm", "rim")),
}
FIGURES = {
    "long-context": {
        *("earliest-T6-1-balls-over-length.png", "earliest-T6-2-balls-over-length.png", "steps-to-learn.png"),
        *("earliest-T6-L5-over-balls.png", "earliest-T6-L20-over-balls.png", "frequent-20-6-2-examples.png"),
        *("error-over-inference.png", "earliest-5-6-1-2-examples.png", "earliest-20-6-1-2-examples.png"),
    },
    "modularity": {"fg-ari.png", "tiny-bcb-16-examples.png"},
    "video-prediction": {"error-over-steps.png", "16-4-8-examples.png"},
    "efficiency": {f"{name}.png" for name in ("latency", "streamed_step", "training_step", "inference", "training")},
}


@cache
def cells_of(name, scale, **choice):
    return EXPERIMENTS[name].cells(Choice(scale, **choice))


OBJECT_CENTRIC = ("object-centric", "slot-ownership", "depth")


def models_of(name):
    if name == "snitch":
        return set(SNITCH_MODELS)
    if name == "depth":
        return set(DEPTH_MODELS)
    if name == "modularity":
        return set(MODULAR_MODELS)
    if name == "video-prediction":
        return {*SEQUENCE_MODELS, RESIDUAL}
    if name == "long-context":
        return {*SEQUENCE_MODELS, *VARIANTS}
    return set(OBJECT_MODELS if name in OBJECT_CENTRIC else SEQUENCE_MODELS)


# --- what is compared -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_cell_has_a_name_of_its_own_and_every_chosen_model_and_length_is_there(name, scale):
    cells, experiment = cells_of(name, scale), EXPERIMENTS[name]
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.model for cell in cells} == set(experiment.models) == models_of(name)
    assert {cell.setting.get("length") for cell in cells} == set(experiment.lengths(scale) or [None])
    assert all(json.loads(json.dumps(cell.fingerprint())) == cell.fingerprint() for cell in cells)


@pytest.mark.parametrize(("name", "scale"), TRAINED)
def test_every_configuration_is_valid_and_is_what_the_setting_says(name, scale):
    for cell in cells_of(name, scale):
        assert RunConfig.model_validate(cell.config.model_dump(mode="json")) == cell.config
        assert cell.seed == cell.config.seed
        recipe, setting = cell.config.data.recipe, cell.setting
        if name == "long-context":
            assert (recipe.num_frames - 1) * cell.config.task.patches_per_side**2 == setting["length"]
            tested = [data.recipe.num_balls for data in cell.tests.values()]
            assert all(data.recipe.min_balls is None for data in cell.tests.values())
            balls = " ".join(map(str, tested)) or recipe.num_balls
            found = {"rule": recipe.rule, "num_frames": recipe.num_frames, "balls": balls}
        elif name in (*OBJECT_CENTRIC, "modularity"):
            found = {"size_px": recipe.size_px}
        elif name == "snitch":
            found = {"size_px": recipe.size_px, "frames": recipe.num_frames}
        else:
            found = {"size_px": recipe.size_px, "frames": recipe.num_frames, "context": cell.config.task.num_context}
        assert found.items() <= setting.items()


def lineage(cell):
    """The configurations of a cell and of those that it starts from, with and without the model.

    The encoder counts as part of SAVi++ and of what is compared with it, and the learning rate as part of the models of
    long-context reasoning.
    """
    while cell is not None:
        own = cell.config.model_dump(mode="json")
        if "trained by" in cell.setting:
            own["task"] = {name: value for name, value in own["task"].items() if not name.startswith("encoder")}
        if "rule" in cell.setting:
            own["train"].pop("learning_rate")
        yield own.pop("model"), own
        cell = cell.start


@pytest.mark.parametrize(("name", "scale"), TRAINED)
def test_models_of_a_setting_differ_in_the_model_and_in_nothing_else(name, scale):
    groups = {}
    for cell in cells_of(name, scale):
        groups.setdefault((*cell.setting.items(), cell.seed), []).append(cell)
    # every setting has every model with the first seed, and no model twice
    first = min(cell.seed for cell in itertools.chain(*groups.values()))
    for key, group in groups.items():
        assert len({cell.model for cell in group}) == len(group)
        assert key[-1] != first or {cell.model for cell in group} == models_of(name)
        reference = EXPERIMENTS[name].models[0]
        ours = list(lineage(next(cell for cell in group if cell.model == reference)))
        for cell in group:
            theirs = list(lineage(cell))
            assert [shared for _, shared in theirs] == [shared for _, shared in ours]
            # one model all along its lineage, and another one than ours
            assert all(model == theirs[0][0] for model, _ in theirs)
            assert (theirs[0][0] == ours[0][0]) == (cell.model == reference)
            assert cell.metrics == group[0].metrics


@pytest.mark.parametrize(("name", "scale"), [pair for pair in SCALES if pair[0] not in OBJECT_CENTRIC])
def test_a_model_is_the_same_in_every_setting(name, scale):
    configs = {}
    for cell in cells_of(name, scale):
        config = cell.config.model if isinstance(cell, TrainingCell) else cell.config
        assert configs.setdefault(cell.model, config) == config
        assert config.kind == VARIANTS.get(cell.model, cell.model)


def test_the_paper_scale_keeps_the_papers_protocol():
    cells = cells_of("long-context", "paper")
    settings = set()
    for cell in cells:
        task, recipe = cell.config.task, cell.config.data.recipe
        assert (task.targets, task.curriculum, cell.start) == ("last", (), None)
        assert (recipe.size_px, recipe.num_balls, recipe.num_colors) == (64, 4, 5)
        # of 128 episodes; longer sequences do not fit a GPU in one piece
        expected = {1280: 2, 2560: 4}.get(cell.setting["length"], 1)
        assert (cell.config.train.batch_size, cell.config.train.accumulation_steps) == (128, expected)
        settings.add((recipe.rule, recipe.num_frames, task.patches_per_side, cell.setting["length"]))
    assert settings == {
        *(("earliest", 6, 4, 80), ("earliest", 6, 8, 320), ("earliest", 6, 16, 1280)),
        *(("frequent", 6, 4, 80), ("frequent", 6, 8, 320), ("frequent", 6, 16, 1280)),
        *(("frequent", 11, 4, 160), ("frequent", 11, 8, 640), ("frequent", 11, 16, 2560)),
    }
    assert len(cells) == 9 * len(models_of("long-context"))
    # patches are a matter of reading: three data sets serve nine settings
    assert len({own_data_path(cell.config) for cell in cells}) == 3
    balls = cells_of("video-prediction", "paper")[0].config
    assert (balls.data.recipe.size_px, balls.data.recipe.num_frames, balls.task.num_context) == (64, 30, 10)


@pytest.mark.parametrize("scale", ["cpu", "tiny"])
def test_a_chain_begins_with_whole_frames_and_makes_them_finer_step_by_step(scale):
    chained = [cell for cell in cells_of("long-context", scale) if cell.start is not None]
    assert chained
    known = {cell.name: cell for cell in cells_of("long-context", scale)}
    for cell in chained:
        before = known[cell.start.name]
        assert before.fingerprint() == cell.start.fingerprint()
        assert (before.model, before.seed) == (cell.model, cell.seed)
        fine, coarse = cell.config.task, before.config.task
        assert cell.config.data == before.config.data
        assert fine.patches_per_side > coarse.patches_per_side
        assert fine.patches_per_side % coarse.patches_per_side == 0
        assert fine.replace(patches_per_side=coarse.patches_per_side) == coarse
        assert cell.tests == before.tests
        assert before.start is not None or coarse.patches_per_side == 1
        assert cell.config.task.curriculum == before.config.task.curriculum == ()


def test_a_predecessor_stands_before_its_successor():
    cells = cells_of("long-context", "cpu")
    names = [cell.name for cell in cells]
    assert all(names.index(cell.start.name) < names.index(cell.name) for cell in cells if cell.start)


def test_the_papers_numbers_are_positive_or_say_what_happened():
    values = paper_numbers.LONG_CONTEXT.values()
    assert len(values) == 45 == 9 * 5
    assert all(value in ("OOM", "NC") or 0 < value < 0.1 for value in values)
    theirs = {(cell.setting["rule"], cell.setting["length"]) for cell in cells_of("long-context", "paper")}
    assert {(rule, length) for rule, length, _ in paper_numbers.LONG_CONTEXT} == theirs
    assert {model for *_, model in paper_numbers.LONG_CONTEXT} < set(SEQUENCE_MODELS)
    assert all(0.03 < floor < 0.05 for floor in paper_numbers.LONG_CONTEXT_ALL_WHITE_ERRORS.values())
    for curve in paper_numbers.VIDEO_PREDICTION.values():
        assert len(curve) == len(paper_numbers.VIDEO_PREDICTION_STEPS)
        assert curve[0] > 0
        assert list(curve) == sorted(curve)
    assert set(paper_numbers.VIDEO_PREDICTION) < set(EXPERIMENTS["video-prediction"].models)


# --- choosing ---------------------------------------------------------------------------------------------


def test_models_seeds_and_lengths_restrict():
    cells = cells_of("long-context", "cpu", models=("rim", "slotssm"), seeds=(7, 8), lengths=(5, 80))
    assert {cell.model for cell in cells} == {"rim", "slotssm"}
    assert {cell.seed for cell in cells} == {7, 8}
    assert {cell.setting["length"] for cell in cells} == {5, 80}
    # a cell keeps its name, its configuration and its predecessors whatever else is chosen
    known = {cell.name: cell for cell in cells_of("long-context", "cpu", seeds=(7, 8))}
    assert all(known[cell.name] == cell for cell in cells)
    assert [cell.seed for cell in cells_of("video-prediction", "tiny", models=("rim",), seeds=(2, 5))] == [2, 5]
    assert {cell.name for cell in cells_of("efficiency", "cpu", models=("rim",), lengths=(80,))} == {"L80-rim"}


def test_named_cells_are_run_in_the_order_of_their_names():
    choice = Choice("tiny", ("slotssm",))
    experiment = experiment_of("long-context", choice)
    everything = chosen_cells(experiment, choice, [])
    assert everything == experiment.cells(choice)
    names = [everything[2].name, everything[0].name]
    assert [cell.name for cell in chosen_cells(experiment, choice, names)] == names


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("longcontext", Choice(), "experiment longcontext is unknown; did you mean long-context[?]"),
        ("long-context", Choice("huge"), "`scale` huge is unknown; long-context has cpu, paper, tiny, rates"),
        ("long-context", Choice(models=("slotsm",)), "`models` slotsm is unknown; long-context compares slotssm, "),
        ("video-prediction", Choice(models=("oc",)), "`models` oc is unknown; video-prediction compares slotssm, "),
        ("long-context", Choice("tiny", lengths=(80,)), r"`lengths` 80 is not one of 5, 20 \(scale tiny\)"),
        ("efficiency", Choice("tiny", lengths=(10, 80)), r"`lengths` 80 is not one of 10, 20 \(scale tiny\)"),
        ("video-prediction", Choice(lengths=(80,)), "`lengths`: video-prediction does not vary the sequence length"),
    ],
)
def test_what_an_experiment_does_not_have_is_refused_with_what_it_has(name, choice, message):
    with pytest.raises(InputError, match="^" + message) as refusal:
        experiment_of(name, choice)
    assert "\n" not in str(refusal.value)


def test_an_unknown_cell_is_refused_with_one_that_exists():
    choice = Choice("tiny", ("rim",))
    with pytest.raises(InputError, match="`cell` rim-s1 is unknown; `dry_run` lists the cells, for example rim-s0"):
        chosen_cells(EXPERIMENTS["video-prediction"], choice, ["rim-s0", "rim-s1"])


def test_scales_have_folders_of_their_own():
    assert str(default_folder("efficiency", Choice("tiny"))) == "reproductions/efficiency-tiny"


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_steps():
    """The tiny presets with fewer steps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tiny-bcb", "tiny-balls"):
            train = {"num_steps": 4, "checkpoint_every_steps": 4, "eval_every_steps": 0}
            short = override(presets.preset(name), {"train": train, "data": {"num_train": 16}}, "test")
            patch.setitem(presets.PRESETS, name, lambda short=short: short)
        chain, alone = long_context.SERIES["tiny"]
        stages = tuple(
            replace(stage, num_steps=steps, eval_every_steps=2)
            for stage, steps in zip(chain.stages, (4, 3), strict=True)
        )
        patch.setattr(long_context, "SERIES", {"tiny": (replace(chain, stages=stages), alone)})
        yield


@pytest.fixture(
    scope="module",
    # every cell of which is measured in a process of its own
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == "efficiency" else []) for name in PAIRS],
)
def made(request, few_steps, tmp_path_factory):
    """An experiment with two models: what was made, and how to make it again."""
    choice = PAIRS[request.param]
    experiment = experiment_of(request.param, choice)
    folder = tmp_path_factory.mktemp(request.param)
    cells = experiment.cells(choice)
    result = reproduce(experiment, choice, folder, cells, "cpu")
    return SimpleNamespace(experiment=experiment, choice=choice, folder=folder, cells=cells, result=result)


def test_table_records_and_figures_are_written(made):
    folder, result = made.folder, made.result
    assert (result.num_done, result.missing) == (len(made.cells), [])
    assert {path.name for path in (folder / "cells").glob("*.json")} == {f"{cell.name}.json" for cell in made.cells}
    assert (folder / "table.txt").read_text() == result.table.text()
    with (folder / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    numbers = [(line["model"], line["metric"], float(line["mean"]), int(line["n"])) for line in lines if line["mean"]]
    assert numbers == [
        (row.model, name, found.mean, len(found.values))
        for row in result.rows
        for name, found in row.metrics.items()
        if found.mean is not None
    ]
    figures = {folder / "figures" / name for name in FIGURES[made.experiment.name]}
    # a figure is there twice, for screens and for papers
    figures |= {path.with_suffix(".pdf") for path in figures}
    assert {*result.files} == {folder / name for name in ("table.txt", "table.csv", "result.json")} | figures
    assert set((folder / "figures").iterdir()) == figures
    for path in figures:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
            continue
        picture = read_picture(path)
        assert 50 < picture.shape[0] < 1500
        assert 100 < picture.shape[1] < 4000
        assert len(distinct_colors(picture)) > 8


def test_result_json_says_what_was_compared_and_where_it_was_measured(made):
    found = json.loads((made.folder / "result.json").read_text())
    assert (found["experiment"], found["scale"], found["missing"]) == (made.experiment.name, "tiny", [])
    assert found["rows"] == [row.document() for row in made.result.rows]
    assert {row["model"] for row in found["rows"]} == set(made.choice.models)
    for row in found["rows"]:
        assert row["failed"] == {}
        assert row["parameters"] > 1000
        assert all(metric["mean"] is not None for metric in row["metrics"].values())
        assert len(row["cells"]) == len(made.choice.seeds or (0,))
    assert set(found["provenance"]) == {cell.name for cell in made.cells}
    assert all(source["machine"]["cpu"] for source in found["provenance"].values())


def test_measured_quantities_are_positive(made):
    if made.experiment.name == "efficiency":
        values = [row.metrics[name].mean for row in made.result.rows for name in row.metrics]
        assert len(values) == 2 * 6
    else:
        values = [row.metrics["mse"].mean for row in made.result.rows]
    assert min(values) > 0


def test_the_second_call_measures_nothing_and_writes_the_same(made, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("measured again")

    for kind in (TrainingCell, EfficiencyCell):
        monkeypatch.setattr(kind, "measure", refuse)
    names = ("table.txt", "table.csv", "result.json")
    before = [(made.folder / name).read_bytes() for name in names]
    again = reproduce(made.experiment, made.choice, made.folder, made.cells, "cpu")
    assert [(made.folder / name).read_bytes() for name in names] == before
    assert again.document() == made.result.document()


def test_a_part_of_what_is_done_is_compared_alone(made, monkeypatch):
    # as on a machine that has the other half of the cells
    choice = Choice("tiny", ("rim", "slotssm"), made.choice.seeds, made.choice.lengths)
    part = reproduce(made.experiment, choice, made.folder, [], "cpu")
    rim = [cell.name for cell in made.experiment.cells(choice) if cell.model == "rim"]
    done = {cell.name for cell in made.cells}
    assert part.missing == [name for name in rim if name not in done]
    assert {row.model for row in part.rows} == {"slotssm"} | ({"rim"} if not part.missing else set())
    # what was there is written again, for the tests that follow
    reproduce(made.experiment, made.choice, made.folder, [], "cpu")


@pytest.mark.parametrize("content", ["[1]", "{}", '{"config": 3}', "null", '{"config": {}, "values": 1}', "torn"])
def test_a_damaged_record_is_named_with_the_remedy(tmp_path, content):
    cell = cells_of("video-prediction", "tiny")[0]
    path = record_path(cell, tmp_path)
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=rf"{cell.name}\.json (is damaged; remove it|cannot be read)"):
        read_record(cell, tmp_path)


def test_one_cell_alone_is_run_and_the_others_are_missing(few_steps, tmp_path):
    choice = Choice("tiny", ("slotssm", "rim"))
    experiment = experiment_of("video-prediction", choice)
    made = reproduce(experiment, choice, tmp_path, chosen_cells(experiment, choice, ["rim-s0"]), "cpu")
    assert (made.num_done, made.missing) == (1, ["slotssm-s0"])
    assert [row[0] for row in made.table.rows] == ["rim", "repeat the last frame", "mean of the context"]
    assert made.table.rows[0][3] == "–"
    assert json.loads((tmp_path / "result.json").read_text())["missing"] == ["slotssm-s0"]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(InputError, match=f"`seeds` {seed} must be between 0 and"):
        EXPERIMENTS["long-context"].check(Choice("tiny", seeds=(seed,)))
