"""Canvas and slot contrast: variants that differ in nothing else, and a table and figures made from their records."""

import pytest

from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.studies.slot_ownership import CONTRAST, LONG_STEPS, SHOWN, SlotOwnership
from slotssm.plotting import read_picture

EXPERIMENT = SlotOwnership()
VARIANTS = ("none", "canvas", "contrast", "both")


def record(cell, fg_ari: float, validation: list[float]) -> dict:
    return {
        "cell": cell.name,
        "model": cell.model,
        "seed": cell.seed,
        "setting": cell.setting,
        "config": cell.fingerprint(),
        "values": {**dict.fromkeys([*SHOWN, "slots-used"], 0.5), "fg-ari": fg_ari},
        "validation": [{"step": 100 * i, "split": "val", "fg-ari": v} for i, v in enumerate(validation, 1)],
        "parameters": 1000,
        "failed": None,
    }


CANVAS = ("canvas", "canvas_cells", "canvas_logit")


@pytest.mark.parametrize("scale", ["cpu", "tiny"])
def test_variants_differ_in_the_additions_alone(scale):
    cells = EXPERIMENT.cells(Choice(scale))
    assert len({cell.name for cell in cells}) == len(cells)
    groups = {}
    for cell in cells:
        group = cell.setting["data"], cell.setting.get("steps"), cell.model, cell.seed
        groups.setdefault(group, {})[cell.setting["variant"]] = cell.config
    assert len(groups) == (3 * 2 * (3 + 1) if scale == "cpu" else 2)
    for variants in groups.values():
        assert tuple(variants) == VARIANTS
        plain, canvas = ({name: getattr(variants[each].task, name) for name in CANVAS} for each in ("none", "canvas"))
        assert plain["canvas"] == "none" != canvas["canvas"]
        for name, config in variants.items():
            with_canvas, with_contrast = name in ("canvas", "both"), name in ("contrast", "both")
            assert {each: getattr(config.task, each) for each in CANVAS} == (canvas if with_canvas else plain)
            assert config.task.slot_contrast == (CONTRAST if with_contrast else 0)
            task = config.task.replace(slot_contrast=0, **plain)
            assert config.replace(task=task) == variants["none"]


def test_the_scores_on_textures_are_those_of_a_preset():
    (cell,) = (c for c in EXPERIMENT.cells(Choice("cpu")) if c.name == "hard-none-oc-slotssm-s0")
    assert cell.config == preset("cpu-oc-hard")


def test_first_seeds_of_all_cells_come_first():
    seeds = [cell.seed for cell in EXPERIMENT.cells(Choice("cpu")) if "steps" not in cell.setting]
    assert seeds == sorted(seeds)
    only = EXPERIMENT.cells(Choice("cpu", models=("savi",), seeds=(2,)))
    assert {(cell.model, cell.seed) for cell in only} == {("savi", 2)}
    assert len(only) == 12


def test_the_long_training_of_the_first_seed_differs_in_its_length_alone():
    cells = EXPERIMENT.cells(Choice("cpu"))
    usual = {
        (c.setting["data"], c.setting["variant"], c.model, c.seed): c.config for c in cells if "steps" not in c.setting
    }
    long = [cell for cell in cells if "steps" in cell.setting]
    assert {cell.seed for cell in long} == {0}
    for cell in long:
        config = usual[cell.setting["data"], cell.setting["variant"], cell.model, 0]
        assert cell.config.train.num_steps == LONG_STEPS["cpu"] >= 2 * config.train.num_steps
        names = ("num_steps", "eval_every_steps")
        assert cell.config.train.replace(**{name: getattr(config.train, name) for name in names}) == config.train
        assert cell.config.replace(train=config.train) == config


def test_seeds_without_the_first_have_no_longer_training():
    assert not any("steps" in cell.setting for cell in EXPERIMENT.cells(Choice("cpu", seeds=(1, 2))))
    assert [cell.seed for cell in EXPERIMENT.cells(Choice("cpu", seeds=(2, 0))) if "steps" in cell.setting] == [0] * 24


def test_the_table_tells_whether_scores_sink_during_training(tmp_path):
    choice = Choice("cpu", models=("oc-slotssm",))
    cells = [cell for cell in EXPERIMENT.cells(choice) if cell.setting["data"] == "easy"]
    records = [record(cell, 0.8 + 0.1 * cell.seed, [0.5, 0.9 + 0.01 * cell.seed, 0.7]) for cell in reversed(cells)]
    rows = EXPERIMENT.rows(records)
    lines = EXPERIMENT.table(rows, choice).rows
    usual, long = lines[:4], lines[4:]
    assert {line[:2] for line in usual} == {("easy", "oc-slotssm")}
    assert {line[:2] for line in long} == {("easy, 6,000 steps", "oc-slotssm")}
    assert {line[2] for line in usual} == {line[2] for line in long} == set(VARIANTS)
    assert {line[3] for line in usual} == {"0.9000 ± 0.1000"}
    assert {line[3] for line in long} == {"0.8000"}
    assert {line[-2] for line in usual} == {"0.910, 0.700"}
    assert {line[-1] for line in usual} == {"3"}
    assert {line[-1] for line in long} == {"1"}
    drawn = EXPERIMENT.draw(rows, tmp_path)
    curves = {"easy-oc-slotssm-training.png", "easy-6000-steps-oc-slotssm-training.png"}
    assert {path.name for path in drawn} == {"fg-ari.png", "miou.png"} | curves
    assert all(read_picture(path).std() > 0 for path in drawn)
    # without a bar there is no chart of bars
    only_long = EXPERIMENT.rows([each for each in records if "steps" in each["setting"]])
    assert [path.name for path in EXPERIMENT.draw(only_long, tmp_path)] == ["easy-6000-steps-oc-slotssm-training.png"]


def test_cells_without_a_history_and_failed_cells_have_a_line_too(tmp_path):
    cells = EXPERIMENT.cells(Choice("tiny"))[:2]
    failed = {**record(cells[0], 0, []), "values": {}, "failed": "diverged"}
    rows = EXPERIMENT.rows([failed, {**record(cells[1], 0.5, []), "validation": []}])
    lines = EXPERIMENT.table(rows, Choice("tiny")).rows
    assert sorted((line[-2], line[-1]) for line in lines) == [("–", "0 (1 failed)"), ("–", "1")]
    assert [path.name for path in EXPERIMENT.draw(rows, tmp_path)] == ["fg-ari.png", "miou.png"]
