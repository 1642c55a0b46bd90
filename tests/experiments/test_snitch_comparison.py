"""The comparison of table 1: two trainings and two kinds of questions for four models, and what needs no model."""

import json

import pytest
import torch
from own_task import own_task

from generators.writer import generate
from slotssm.documents import override
from slotssm.experiments import paper_numbers, presets
from slotssm.experiments.datasets import own_data_path
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import TrainingCell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import TOLERANCE, count_used_parameters
from slotssm.experiments.reproductions.reproduce import reproduce
from slotssm.experiments.reproductions.studies.snitch import BASELINES, QUESTIONS, SHOWN, TAKEN, Snitch
from slotssm.grid import ENDINGS
from slotssm.plotting import read_picture
from slotssm.training.checkpoint import latest
from slotssm.training.run import RunDirectory

EXPERIMENT = Snitch()
SCALES = tuple(Snitch.scales)


def setting(training: str, questions: str = "last") -> dict:
    return {"data": "cpu-snitch", "size_px": 32, "frames": 16, "training": training, "questions": questions}


def record(model: str, training: str, seed: int = 0, questions: str = "last", top_1: float = 0.5, **changes) -> dict:
    """What is known of a cell that is done, with scores that its seed shifts."""
    endings = {name: {"accuracy": top_1, "last_seen": 0.1 * code} for code, name in enumerate(ENDINGS)}
    made = {
        "cell": f"{training}-{questions}-{model}-s{seed}",
        "model": model,
        "setting": setting(training, questions),
        "seed": seed,
        "failed": None,
        "values": {"top-1": top_1, "top-5": 0.8, "cell-distance": 1.5},
        "parameters": 1000,
        "validation": [{"split": "val", "step": 100 * i, "top-1": top_1 * i / 2} for i in (1, 2)],
        "results": [
            {"metric": "top-1", "interval": [0, 1], "majority_class": 0.2, "last_seen": 0.4, "by_ending": endings},
            {"metric": "top-5", "interval": [0, 1], "majority_class": 0.6},
            {"metric": "cell-distance", "interval": [0, 3], "majority_class": 2.0, "last_seen": 1.0},
        ],
        "config": preset("cpu-snitch-pretrain" if training == "pre-training" else "cpu-snitch").model_dump(mode="json"),
    }
    return made | changes


# --- what is compared -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_trainings_differ_in_the_weights_they_start_from_alone(scale):
    cells = {cell.name: cell for cell in EXPERIMENT.cells(Choice(scale))}
    for cell in cells.values():
        if cell.setting["training"] == "pre-trained":
            direct = cells[cell.name.replace("pre-trained", "direct")]
            assert (cell.config, cell.metrics, cell.model) == (direct.config, direct.metrics, direct.model)
            assert (direct.start, direct.start_parts, cell.start_parts) == (None, (), TAKEN)
            assert cell.start == cells[cell.start.name]
        else:
            assert cell.start is None
    questions = {cell.setting["questions"] for cell in cells.values()}
    assert questions == {*QUESTIONS[scale], "none"}


@pytest.mark.parametrize("scale", SCALES)
def test_pre_training_has_the_videos_the_encoder_and_the_model_of_what_follows(scale):
    for cell in EXPERIMENT.cells(Choice(scale)):
        if cell.start is not None:
            before, after = cell.start.config, cell.config
            assert before.task.kind == "reconstruct"
            assert before.train.clips == "segments"
            assert (before.model, before.seed) == (after.model, after.seed)
            assert own_data_path(before) == own_data_path(after)
            for name in ("encoder_channels", "encoder_downsample"):
                assert getattr(before.task, name) == getattr(after.task, name)


@pytest.mark.parametrize("scale", SCALES)
def test_questions_at_every_frame_are_the_only_aid(scale):
    cells = {cell.name: cell for cell in EXPERIMENT.cells(Choice(scale)) if cell.setting["training"] == "direct"}
    for cell in cells.values():
        targets = cell.config.task.targets
        assert targets == cell.setting["questions"]
        other = cells.get(cell.name.replace("every", "last"))
        if other is not None:
            assert cell.config.task.replace(targets="last") == other.config.task
            assert cell.config.replace(task=other.config.task) == other.config


@pytest.mark.parametrize("name", ["tiny-snitch", "cpu-snitch", "paper-snitch"])
def test_models_have_one_size_and_pre_training_presets_belong_to_theirs(name):
    base, before = preset(name), preset(f"{name}-pretrain")
    assert (base.name, before.name) == (name, f"{name}-pretrain")
    assert (base.data, base.model) == (before.data, before.model)
    scale = next(scale for scale, found in Snitch.scales.items() if found.preset == name)
    sizes = {cell.model: count_used_parameters(cell.config.model) for cell in EXPERIMENT.cells(Choice(scale))}
    assert set(sizes) == set(EXPERIMENT.models)
    for size in sizes.values():
        assert size == pytest.approx(count_used_parameters(base.model), rel=TOLERANCE)


@pytest.mark.parametrize("model", Snitch.models)
def test_every_model_reconstructs_and_passes_its_encoder_and_slots_on(model):
    cells = [cell for cell in EXPERIMENT.cells(Choice("tiny", models=(model,))) if cell.start]
    before, after = own_task(cells[0].start.config), own_task(cells[0].config)
    frames = torch.randint(256, (2, 3, 24, 24, 3), dtype=torch.uint8)
    loss, _ = before({"frames": frames})
    loss.backward()
    # queries and keys of a single slot have no effect
    without = sum(weight.numel() for weight in before.parameters() if weight.requires_grad and weight.grad is None)
    assert without <= sum(weight.numel() for weight in before.model.parameters()) - before.model.count_used_parameters()
    outputs = before.predict(frames)
    num_slots = cells[0].config.model.num_slots
    assert outputs["masks"].shape == (2, 3, num_slots, 24, 24)
    for part in TAKEN:
        ours, theirs = (task.get_submodule(part).state_dict() for task in (before, after))
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_the_paper_scale_has_the_papers_protocol():
    (cell, *_) = (cell for cell in EXPERIMENT.cells(Choice("paper")) if cell.start)
    train, recipe = cell.config.train, cell.config.data.recipe
    assert (train.clips, train.clip_len, recipe.num_frames, recipe.size_px) == ("segments", 50, 300, 64)
    assert (cell.config.task.num_eval_frames, cell.config.task.targets) == (50, "last")
    assert cell.start.config.train.clip_len == 32
    papers = {key: row for key, row in paper_numbers.SNITCH.items() if key[0] == "direct"}
    assert {model for _, model in papers} == set(EXPERIMENT.models)
    for first, fifth in paper_numbers.SNITCH.values():
        assert 0 < first < fifth < 1


def test_a_choice_leaves_the_others_as_they_are():
    known = {cell.name: cell for cell in EXPERIMENT.cells(Choice("cpu"))}
    some = EXPERIMENT.cells(Choice("cpu", models=("oc-slotssm",), seeds=(1,)))
    assert {(cell.model, cell.seed) for cell in some} == {("oc-slotssm", 1)}
    assert all(known[cell.name] == cell for cell in some)


# --- table and figures ------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    records = [
        record("oc-slotssm", "pre-trained", 0, top_1=0.6),
        record("oc-slotssm", "pre-trained", 1, top_1=0.8),
        record("slotssm", "direct"),
        record("slotssm", "direct", questions="every", top_1=0.7),
        record("oc-slotssm", "direct", failed="not converged: nan", values={}, results=[], parameters=None),
        record("slotssm", "pre-training", questions="none", values={"mse": 0.012, "fg-ari": 0.3}, results=[]),
    ]
    return EXPERIMENT.rows(records)


def test_scores_stand_beside_the_papers_and_the_baselines(rows):
    table = EXPERIMENT.table(rows, Choice("cpu"))
    lines = [dict(zip(table.columns, line, strict=True)) for line in table.rows]
    assert [(line["questions"], line["training"], line["model"]) for line in lines] == [
        ("last", "direct", "slotssm"),
        ("last", "direct", "oc-slotssm"),
        ("last", "pre-trained", "oc-slotssm"),
        ("every", "direct", "slotssm"),
        ("none", "none", "last visible position"),
        ("none", "none", "majority class"),
    ]
    one, failed, ours, aided, last, most = lines
    assert (one["paper's top-1"], one["paper's top-5"], one["seeds"]) == ("0.2564", "0.4503", "1")
    assert (failed["top-1"], failed["carried"], failed["seeds"]) == ("–", "–", "0 (1 failed)")
    assert (ours["top-1"], ours["paper's top-1"], ours["seeds"]) == ("0.7000 ± 0.1414", "0.6927", "2")
    # the paper has no questions at every frame
    assert (aided["paper's top-1"], aided["paper's top-5"]) == ("–", "–")
    assert [last[SHOWN[name]] for name in ("top-1", "top-5", "cell-distance", "top-1/carried")] == [
        *("0.4000", "–", "1.0000", "0.3000")
    ]
    assert [most[SHOWN[name]] for name in ("top-1", "top-5", "cell-distance", "top-1/carried")] == [
        *("0.2000", "0.6000", "2.0000", "–")
    ]
    (note,) = (note for note in table.notes if "slotssm 0.0120 / 0.3000" in note)
    assert note.endswith("With a canvas and a foreground weight, which are not in the paper.")


def test_rows_are_json_and_those_of_baselines_have_no_cells(rows):
    found = json.loads(json.dumps([row.document() for row in rows]))
    without = {row["model"] for row in found if not row["cells"]}
    assert without == set(BASELINES.values())


def test_figures_have_the_baseline_and_the_course_of_training(rows, tmp_path):
    drawn = EXPERIMENT.draw(rows, tmp_path)
    assert {path.name for path in drawn} == {
        *("top-1.png", "top-1-carried.png"),
        *("direct-last-frame-training.png", "direct-every-frame-training.png", "pre-trained-last-frame-training.png"),
    }
    assert all(read_picture(path).std() > 0 for path in drawn)


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert EXPERIMENT.draw([], tmp_path) == []
    assert EXPERIMENT.table([], Choice("cpu")).rows == []


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.fixture
def few_steps(monkeypatch):
    for name in ("tiny-snitch", "tiny-snitch-pretrain"):
        train = {"num_steps": 3, "batch_size": 4, "eval_every_steps": 3, "checkpoint_every_steps": 3}
        data = {"num_train": 8, "num_val": 2, "num_test": 4}
        short = override(preset(name), {"train": train, "data": data}, "test")
        monkeypatch.setitem(presets.PRESETS, name, lambda short=short: short)


def test_the_comparison_is_made_and_made_once(few_steps, tmp_path, monkeypatch):
    choice = Choice("tiny", models=("oc-slotssm",))
    cells = EXPERIMENT.cells(choice)
    made = reproduce(EXPERIMENT, choice, tmp_path, cells, "cpu")
    assert (made.num_done, made.missing, len(cells)) == (5, [], 5)
    table = (tmp_path / "table.txt").read_text()
    assert all(label in table for label in ("oc-slotssm", *BASELINES.values()))
    names = {path.name for path in made.files}
    assert {"top-1.png", "tiny-snitch-24-16-direct-last-examples.png"} <= names
    assert {"tiny-snitch-24-16-pre-training-none-examples.png", "pre-trained-every-frame-training.png"} <= names
    # fine-tuned runs say where encoder and model came from, and have only one data set together
    fine = RunDirectory(tmp_path / "runs" / "pre-trained-last-oc-slotssm-s0")
    initial = fine.config().train.initial
    assert initial.run.endswith("pre-training-oc-slotssm-s0")
    assert set(initial.parts) == set(TAKEN)
    assert len(list((tmp_path / "data").glob("*.h5"))) == 1
    assert latest(fine.checkpoints).name == "step-00000003"
    monkeypatch.setattr(TrainingCell, "measure", lambda *_: pytest.fail("measured again"))
    again = reproduce(EXPERIMENT, choice, tmp_path, cells, "cpu")
    assert again.document() == made.document()


def test_records_of_other_parts_are_not_taken_for_ours():
    cell = next(cell for cell in EXPERIMENT.cells(Choice("tiny")) if cell.start)
    recorded = json.loads(json.dumps(cell.fingerprint()))
    assert cell.agrees(recorded)
    assert not cell.agrees({**recorded, "start_parts": ["encoder"]})
    assert not cell.agrees({name: value for name, value in recorded.items() if name != "start_parts"})


def test_given_files_take_the_place_of_our_videos(tmp_path):
    path = tmp_path / "my videos.h5"
    generate(preset("tiny-snitch").data.replace(num_train=4, num_val=2, num_test=0), path, workers=1)
    cells = EXPERIMENT.cells(Choice("tiny", models=("slotssm",), data=(path,)))
    assert {cell.setting["data"] for cell in cells} == {"my-videos"}
    assert {cell.split for cell in cells} == {"val"}
    assert all(cell.name.startswith("my-videos-") for cell in cells)
    assert len({cell.config.data for cell in cells}) == 1
