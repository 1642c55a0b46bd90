"""Documents: faults are named by their key, however deep, with the nearest valid name."""

import pytest
from pydantic import ValidationError

from slotssm.config import FileData, RunConfig, TrainConfig
from slotssm.documents import as_described_toml, as_toml, load, nearest, override, parse_assignments, read_toml
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.layers import MambaConfig, S5Config
from slotssm.models import OCSlotSSMConfig

DOCUMENT = preset("tiny-oc").model_dump(mode="json")


def refusal(*path_and_value) -> str:
    """The one line for a run of which one value is another."""
    *path, value = path_and_value
    document = value
    for name in reversed(path):
        document = {name: document}
    with pytest.raises(InputError) as error:
        load(RunConfig, _laid_over(DOCUMENT, document), "run.toml")
    message = str(error.value)
    assert message.startswith("run.toml: ")
    assert "\n" not in message
    return message.removeprefix("run.toml: ")


def _laid_over(old, new):
    both = isinstance(old, dict) and isinstance(new, dict)
    return {**old, **{key: _laid_over(old.get(key), value) for key, value in new.items()}} if both else new


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("sed",), "unknown key sed; did you mean seed?"),
        (("train", "num_step"), "unknown key train.num_step; did you mean num_steps?"),
        (("model", "slot_dimm"), "unknown key model.slot_dimm; did you mean slot_dim?"),
        (("model", "time_mixer", "dstate"), "unknown key model.time_mixer.dstate; did you mean d_state?"),
        (("data", "num_trian"), "unknown key data.num_trian; did you mean num_train?"),
        (("data", "recipe", "num_framez"), "unknown key data.recipe.num_framez; did you mean num_frames?"),
        (("task", "decoder_chanels"), "unknown key task.decoder_chanels; did you mean decoder_channels?"),
    ],
)
def test_unknown_keys_are_named_by_their_path_with_the_nearest_key_of_their_part(path, message):
    assert refusal(*path, 1) == message


def test_a_key_that_resembles_none_comes_with_all_of_its_part():
    message = refusal("model", "time_mixer", "zzzz", 1)
    assert message == f"unknown key model.time_mixer.zzzz; there are {', '.join(MambaConfig.model_fields)}"


def test_hints_are_of_the_kind_that_the_document_names():
    # d_conv is a key of Mamba, but not of S5
    message = refusal("model", "time_mixer", {"kind": "s5", "d_conv": 4})
    assert message.startswith("unknown key model.time_mixer.d_conv; ")
    named = message.removesuffix("?").replace(",", "").split()
    assert set(named) & set(S5Config.model_fields)
    assert "d_conv" not in named


def test_an_unknown_key_inside_of_an_optional_part():
    message = refusal("train", "initial", {"run": "runs/a", "part": ["model"]})
    assert message == "unknown key train.initial.part; did you mean parts?"


def test_an_unknown_key_inside_of_a_list():
    message = refusal("train", "phases", [{"num_step": 3, "batch_size": 4, "clip_len": 2}])
    assert message == "unknown key train.phases.0.num_step; did you mean num_steps?"


def test_a_list_of_tables_is_written_as_it_is_read(tmp_path):
    phases = ({"num_steps": 3, "batch_size": 4, "clip_len": 2}, {"num_steps": 1, "batch_size": 2, "clip_len": 0})
    run = preset("tiny-oc").replace(train=TrainConfig(phases=phases, part_learning_rates={"model": 1e-3}))
    for text in (as_toml(run), as_described_toml(run)):
        (tmp_path / "run.toml").write_text(text)
        assert load(RunConfig, read_toml(tmp_path / "run.toml"), "test") == run


def test_a_file_has_keys_of_its_own():
    message = refusal("data", None)
    assert message == "data: data must be a table with the key recipe, or path for a file"
    document = DOCUMENT | {"data": {"path": "a.h5", "num_test": 3}}
    with pytest.raises(InputError, match=r"^run: unknown key data\.num_test; did you mean num_train\?$"):
        load(RunConfig, document, "run")
    both = DOCUMENT | {"data": {**DOCUMENT["data"], "path": "a.h5"}}
    with pytest.raises(InputError, match="data has both recipe and path"):
        load(RunConfig, both, "run")
    only = DOCUMENT | {"data": {"path": "a.h5"}}
    assert load(RunConfig, only, "run").data == FileData(path="a.h5")


@pytest.mark.parametrize(
    ("path_and_value", "path", "said"),
    [
        (("train", "num_steps", 0), "train.num_steps", "greater than or equal to 1"),
        (("train", "num_steps", "many"), "train.num_steps", "valid integer"),
        (("model", "slot_dim", 2), "model.slot_dim", "greater than or equal to 4"),
        (("model", "num_heads", 3), "model", "num_heads 3 does not divide slot_dim 16"),
        (("model", "time_mixer", "d_state", 0), "model.time_mixer.d_state", "greater than"),
        (("data", "recipe", "num_frames", "six"), "data.recipe.num_frames", "valid integer"),
        (("task", "encoder_channels", [8, 0]), "task.encoder_channels.1", "greater than 0"),
        (("model", 3), "model", "a model is a table with the key kind"),
        (("model", "time_mixer", []), "model.time_mixer", "a time mixer is a table with the key kind"),
    ],
)
def test_wrong_values_are_named_by_their_path(path_and_value, path, said):
    message = refusal(*path_and_value)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_missing_kind_is_named_by_its_path_with_all_there_are():
    for changes, message in (
        ({"task": {"loss": "mse"}}, "task: kind is missing; there are depth, localise, predict, recall, reconstruct"),
        (
            {"data": {"recipe": {"size_px": 16}}},
            "data.recipe: kind is missing; there are bcb, bouncing, snitch, tabletop",
        ),
    ):
        with pytest.raises(InputError) as error:
            load(RunConfig, DOCUMENT | changes, "run")
        assert str(error.value) == f"run: {message}"


@pytest.mark.parametrize("field", ["task", "model", "data"])
def test_a_configuration_of_another_sort_is_refused(field):
    with pytest.raises(ValidationError, match=field):
        preset("tiny-oc").replace(**{field: MambaConfig()})


def test_a_typo_is_told_before_what_is_missing_because_of_it():
    document = {("modle" if name == "model" else name): value for name, value in DOCUMENT.items()}
    with pytest.raises(InputError, match=r"^run: unknown key modle; did you mean model\?$"):
        load(RunConfig, document, "run")
    del document["modle"]
    with pytest.raises(InputError, match=r"^run: model: Field required$"):
        load(RunConfig, document, "run")


def test_changes_keep_what_they_do_not_name_unless_the_kind_is_another():
    run = preset("tiny-oc")
    changed = override(run, {"model": {"num_slots": 5}}, "test")
    assert changed == run.replace(model=run.model.replace(num_slots=5))
    other = override(run, {"model": {"kind": "oc-slotssm", "time_mixer": {"kind": "s5"}}}, "test")
    assert other.model == run.model.replace(time_mixer=S5Config())


# --- replace ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("true", True),
        ("null", None),
        ("image", "image"),
        ("2026-01-02", "2026-01-02"),
        ("[8, 16]", [8, 16]),
        ('["a", "b"]', ["a", "b"]),
        (' [{"num_steps": 5}]', [{"num_steps": 5}]),
        # as `presets` prints it
        ("[{ num_steps = 5, clip_len = 2 }]", [{"num_steps": 5, "clip_len": 2}]),
        ('{ kind = "s5" }', {"kind": "s5"}),
    ],
)
def test_assigned_values_are_json_or_as_configurations_are_printed(text, value):
    assert parse_assignments([f"train.phases={text}"]) == {"train": {"phases": value}}


@pytest.mark.parametrize("text", ["[8, 16", '[{"num_steps": }]', "{num_steps}"])
def test_an_assigned_list_that_cannot_be_read_is_refused_as_such(text):
    with pytest.raises(InputError, match="neither in JSON nor in TOML"):
        parse_assignments([f"train.phases={text}"])


PHASE = {"num_steps": 2, "batch_size": 6, "clip_len": 0}


def test_replaced_fields_are_validated():
    train = TrainConfig(batch_size=8)
    assert train.replace(batch_size=4, accumulation_steps=2).batch_size == 4
    for changes, said in (
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_sise": 4}, "Extra inputs are not permitted"),
        ({"accumulation_steps": 3}, "accumulation_steps 3 does not divide batch_size 8"),
        ({"phases": [PHASE], "accumulation_steps": 4}, r"4 does not divide phases\[0\].batch_size 6"),
        ({"phases": [PHASE], "clips": "segments", "clip_len": 2}, r"'segments' needs phases\[0\].clip_len"),
        ({"num_steps": "many"}, "valid integer"),
    ):
        with pytest.raises(ValidationError, match=said):
            train.replace(**changes)
    assert train == TrainConfig(batch_size=8)


def test_replacing_checks_fields_against_those_that_stay():
    model = OCSlotSSMConfig(slot_dim=16, num_heads=4)
    with pytest.raises(ValidationError, match="num_heads 3 does not divide slot_dim 16"):
        model.replace(num_heads=3)
    with pytest.raises(ValidationError, match="model"):
        preset("tiny-oc").replace(model={"kind": "oc-slotssm", "num_heads": 3})
    assert preset("tiny-oc").replace(model={"kind": "oc-slotssm", "num_slots": 2}).model == OCSlotSSMConfig(num_slots=2)


def test_the_copy_is_of_the_same_class_and_shares_nothing_else_than_values():
    run = preset("tiny-oc")
    copy = run.replace(seed=run.seed + 1)
    assert type(copy) is RunConfig
    assert copy != run
    assert copy.replace(seed=run.seed) == run
    assert type(copy.model) is type(run.model)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("mamaba", ["mamba", "s5"], "did you mean mamba?"),
        ("zzzz", ["mamba", "s5"], "there are mamba, s5"),
        ("zzzz", [], "there are none"),
    ],
)
def test_nearest(name, known, said):
    assert nearest(name, known) == said
