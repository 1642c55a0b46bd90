"""The object-centric comparison: its cells, its table, its figures; what it trains is tested through the command."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from own_task import own_task

from generators.writer import generate
from slotssm.errors import InputError
from slotssm.experiments.datasets import file_data
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import ProgressCallbacks, run_cell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import count_used_parameters
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.experiments.reproductions.studies.object_centric import DATA, LONGER, SCORED, SHOWN, ObjectCentric
from slotssm.models import OCSlotSSMConfig, SAViConfig


def record(data: str, model: str, seed: int, failed: str | None = None, **values: float):
    """What is known of a cell that is done."""
    return {
        "cell": f"{data}-{model}-s{seed}",
        "model": model,
        "setting": {"data": data, "size_px": 32},
        "seed": seed,
        "failed": failed,
        "values": values,
        "parameters": 1000,
        "results": [],
    }


@pytest.mark.parametrize("scale", DATA)
def test_both_models_meet_the_same_data_and_training(scale):
    cells = ObjectCentric().cells(Choice(scale))
    seeds = 1 if scale == "tiny" else 3
    num_settings = len(DATA[scale]) + len(LONGER.get(scale, {}))
    assert len({cell.name for cell in cells}) == len(cells) == 2 * seeds * num_settings
    for data, name in DATA[scale].items():
        base = preset(name)
        for cell in (cell for cell in cells if cell.setting["data"] == data):
            assert cell.setting["size_px"] == base.data.recipe.size_px
            times = LONGER[scale][data] if "training" in cell.setting else 1
            assert cell.config.train.num_steps == times * base.train.num_steps
            longer = {"num_steps", "eval_every_steps"} if times > 1 else set()
            exclude = {"model": True, "seed": True, "train": longer}
            assert cell.config.model_dump(exclude=exclude) == base.model_dump(exclude=exclude)
            assert cell.seed == int(cell.name[-1])
            assert type(cell.config.model) is {"oc-slotssm": OCSlotSSMConfig, "savi": SAViConfig}[cell.model]
            assert count_used_parameters(cell.config.model) == pytest.approx(
                count_used_parameters(base.model), rel=0.05
            )


@pytest.mark.parametrize("name", [name for presets in DATA.values() for name in presets.values()])
def test_presets_have_a_slot_for_every_object(name):
    config = preset(name)
    assert config.model.num_slots >= config.data.recipe.max_objects
    assert "masks" in own_task(config).outputs


def test_a_choice_of_models_and_seeds_leaves_the_others_out():
    cells = ObjectCentric().cells(Choice("cpu", models=("savi",), seeds=(4,)))
    names = ["easy-savi-s4", "medium-savi-s4", "tabletop-a-savi-s4", "tabletop-a-x4-savi-s4", "tabletop-b-savi-s4"]
    assert [cell.name for cell in cells] == names


def test_rows_average_seeds_and_count_failures():
    records = [
        record("easy", "oc-slotssm", 0, **{"fg-ari": 0.9, "probe/color": 0.5}),
        record("easy", "oc-slotssm", 1, **{"fg-ari": 0.8, "probe/color": 0.7}),
        record("easy", "savi", 0, failed="not converged: nan"),
    ]
    experiment = ObjectCentric()
    ours, savi = experiment.rows(records)
    assert ours.metrics["fg-ari"].mean == pytest.approx(0.85)
    table = experiment.table([ours, savi], Choice("cpu"))
    assert table.columns == ("", "easy: oc-slotssm", "easy: savi")
    headings, *columns = zip(*table.rows, strict=True)
    first, second = (dict(zip(headings, column, strict=True)) for column in columns)
    assert first["FG-ARI"] == "0.8500 ± 0.0707"
    assert first["colour accuracy"] == "0.6000 ± 0.1414"
    assert first["mIoU"] == "–"
    assert (first["seeds"], second["seeds"]) == ("2", "0 (1 failed)")
    assert any("MOVi-A: oc-slotssm 0.684 / 0.546, savi 0.639 / 0.433" in note for note in table.notes)


def test_a_single_seed_has_the_interval_of_its_own_property():
    known = record("easy", "savi", 0, **{"probe/color": 0.5, "probe/shape": 0.25})
    known["results"] = [
        {"metric": "probe", "property": "shape", "interval": [0.2, 0.3]},
        {"metric": "probe", "property": "color", "interval": [0.4, 0.6]},
    ]
    (row,) = ObjectCentric().rows([known])
    assert str(row.metrics["probe/color"]) == "0.5000 [0.4000, 0.6000]"
    assert str(row.metrics["probe/shape"]) == "0.2500 [0.2000, 0.3000]"


def test_figures_show_both_models(tmp_path):
    records = [record("easy", model, 0, **{"fg-ari": 0.9, "miou": 0.5}) for model in ("oc-slotssm", "savi")]
    experiment = ObjectCentric()
    drawn = experiment.draw(experiment.rows(records), tmp_path)
    assert [path.name for path in drawn] == ["fg-ari.png", "miou.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_longer_training_is_a_row_of_its_own_with_its_course(tmp_path, axes):
    records = [record("tabletop a", model, 0, **{"fg-ari": 0.9, "miou": 0.5}) for model in ("oc-slotssm", "savi")]
    longer = [{**done, "setting": {**done["setting"], "training": "4 times as long"}} for done in records]
    for done in longer:
        done["validation"] = [{"step": step, "fg-ari": step / 10, "miou": step / 20} for step in (1, 2, 3)]
    experiment = ObjectCentric()
    rows = experiment.rows([*records, *longer])
    assert experiment.table(rows, Choice("cpu")).columns[3] == "tabletop a, 4 times as long: oc-slotssm"
    drawn = experiment.draw(rows, tmp_path)
    assert [path.name for path in drawn] == ["fg-ari.png", "miou.png", "tabletop-a-4-times-as-long.png"]
    *_, fg_ari, miou = axes
    for axis, divisor in ((fg_ari, 10), (miou, 20)):
        assert len(axis.lines) == 2
        np.testing.assert_allclose(axis.lines[0].get_xydata(), [(step, step / divisor) for step in (1, 2, 3)])


def test_networks_probe_the_chosen_properties_under_a_name_of_their_own(tmp_path):
    (cell,) = ObjectCentric().cells(Choice("tiny", models=("oc-slotssm",)))
    few = cell.config.replace(train=cell.config.train.replace(num_steps=2))
    record = run_cell(replace(cell, config=few, metrics=("probe",)), tmp_path, "cpu", ProgressCallbacks())
    assert {"probe/position", "probe/position@mlp", "probe/color"} <= set(record["values"])
    assert "probe/color@mlp" not in record["values"]
    asked = [done["options"]["probe"] for done in record["results"] if done.get("property") == "position"]
    assert asked == ["linear", "mlp"]
    (row,) = ObjectCentric().rows([record])
    intervals = [row.metrics[name].interval for name in ("probe/position", "probe/position@mlp")]
    assert None not in intervals
    assert intervals[0] != intervals[1]


def test_networks_probe_only_what_a_file_has(tmp_path):
    path = tmp_path / "bare.h5"
    generate(preset("tiny-oc").data.replace(num_train=4, num_val=0, num_test=2), path, workers=1)
    (cell,) = ObjectCentric().cells(Choice("tiny", models=("savi",), data=(path,)))
    assert cell.network_probes == ("position",)
    with h5py.File(path, "r+") as file:
        for split in ("train", "test"):
            del file[f"{split}/objects/position"]
    (cell,) = ObjectCentric().cells(Choice("tiny", models=("savi",), data=(path,)))
    assert cell.network_probes == ()


def test_what_is_shown_are_scores_that_are_computed():
    assert {name.split("/")[0] for name in SHOWN} <= set(SCORED)


def test_a_file_takes_the_place_of_the_experiments_own_data(tmp_path):
    path = tmp_path / "my shapes.h5"
    recipe = preset("tiny-oc").data
    generate(recipe.replace(num_train=8, num_val=0, num_test=2), path, workers=1)
    choice = Choice("tiny", models=("oc-slotssm",), data=(path,))
    (cell,) = ObjectCentric().cells(choice)
    assert (cell.name, cell.setting["data"], cell.config.name) == (
        "my-shapes-oc-slotssm-s0",
        "my shapes",
        "my-shapes",
    )
    assert cell.config.data == file_data(path)
    few = cell.config.replace(train=cell.config.train.replace(num_steps=2, batch_size=4))
    record = run_cell(replace(cell, config=few, metrics=("fg-ari",)), tmp_path / "out", "cpu", ProgressCallbacks())
    assert record["data_sha256"] == cell.config.data.sha256
    assert "fg-ari" in record["values"]
    assert not (tmp_path / "out" / "data").exists()


def test_an_experiment_with_data_of_its_own_refuses_a_file(tmp_path):
    with pytest.raises(InputError, match="`data`: long-context makes its own data"):
        EXPERIMENTS["long-context"].check(Choice("tiny", data=(tmp_path / "a.h5",)))
