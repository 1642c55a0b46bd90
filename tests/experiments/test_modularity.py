"""The comparison of what slots specialise in without competing: its cells, its scores, its table and its figure."""

from dataclasses import replace

import pytest

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation import ScoringOptions, evaluate
from slotssm.evaluation.mask_baselines import MeanMasks
from slotssm.evaluation.sources import TaskSource
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import ProgressCallbacks, picture_path, run_cell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import MODULAR_MODELS
from slotssm.experiments.reproductions.studies.modularity import SHOWN, Modularity
from slotssm.experiments.runs import load_run
from slotssm.plotting import model_name, read_picture
from slotssm.training.run import RunDirectory


@pytest.fixture(scope="module", params=["slotssm", "rim"])
def measured(request, tmp_path_factory):
    """Folder, cell and record of a training of a few steps."""
    folder = tmp_path_factory.mktemp("modularity")
    (cell,) = Modularity().cells(Choice("tiny", models=(request.param,)))
    few = cell.config.replace(train=cell.config.train.replace(num_steps=3))
    cell = replace(cell, config=few)
    return folder, cell, run_cell(cell, folder, "cpu", ProgressCallbacks())


@pytest.mark.parametrize("scale", Modularity.scales)
def test_models_with_several_slots_learn_the_same_task(scale):
    cells = Modularity().cells(Choice(scale))
    assert [cell.model for cell in cells] == list(MODULAR_MODELS)
    assert all(cell.config.replace(model=cells[0].config.model) == cells[0].config for cell in cells)
    assert all(cell.config.model.num_slots > 1 for cell in cells)


def test_a_cpu_reads_whole_frames_for_as_long_as_the_curriculum_does():
    (cell,) = Modularity().cells(Choice("cpu", models=("slotssm",)))
    task, base = cell.config.task, preset("cpu-bcb")
    assert (task.patches_per_side, task.curriculum) == (1, ())
    assert base.task.curriculum == ((1, cell.config.train.num_steps),)


def test_the_map_is_scored_beside_places_and_what_its_size_allows(measured):
    folder, cell, record = measured
    assert {*SHOWN, "mse"} == set(record["values"])
    run, data = RunDirectory(folder / "runs" / cell.name), next((folder / "data").glob("*.h5"))
    with EpisodeFile(data) as truth:
        source = TaskSource(load_run(run)[0], "cross-attention")
        options = ScoringOptions(mask_source="cross-attention")
        expected = evaluate(source, truth, "test", ["fg-ari"], options).values()["fg-ari"]
        by_place = evaluate(MeanMasks(source, truth, "test"), truth, "test", ["fg-ari"]).values()["fg-ari"]
    assert record["values"]["fg-ari@read"] == expected
    assert record["values"]["fg-ari@by-place"] == by_place
    assert record["values"]["fg-ari@coarse-truth"] > 0.9 > expected
    names = [(found["metric"], found.get("convention")) for found in record["results"]]
    assert len(set(names)) == len(names)


def test_the_table_and_the_figure_have_every_model(measured, axes, tmp_path):
    _, _, record = measured
    experiment = Modularity()
    rows = experiment.rows([record, {**record, "model": "split-ssm", "cell": "split-ssm-s0"}])
    table = experiment.table(rows, Choice("tiny"))
    assert [line[0] for line in table.rows] == [record["model"], "split-ssm"]
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert shown["FG-ARI of the coarse truth"].startswith(f"{record['values']['fg-ari@coarse-truth']:.4f} [")
    (path,) = experiment.draw(rows, tmp_path)
    assert path.exists()
    assert [text.get_text() for text in axes[0].get_xticklabels()] == [model_name(record["model"]), "Split SSM"]


def test_the_picture_shows_truth_and_masks_above_prediction_and_slots(measured):
    folder, cell, _ = measured
    picture = read_picture(picture_path(cell, folder))
    side = cell.config.data.recipe.size_px
    assert len(picture) == 4 * side
    assert picture.shape[1] % (side + 1) == 0
