"""Configuration: what is refused and in which words, and that what is saved runs again as it was."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BOUNCING_PRESETS, BouncingRecipe, bouncing_fields
from slotssm.config import FileData, RecipeData, RunConfig
from slotssm.data.episodes import standard_layout
from slotssm.data.spec import spec_from_layout
from slotssm.documents import load, override, parse_assignments, read_toml
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.experiments.resolve import Request, resolve
from slotssm.layers import Mamba2Config, MambaConfig, S4DConfig, S5Config
from slotssm.models import (
    OCSlotSSMConfig,
    RIMConfig,
    SingleStateSSMConfig,
    SlotRNNConfig,
    SlotTransformerConfig,
    SplitSSMConfig,
    TransformerConfig,
)
from slotssm.tasks import check_run

RECALL = {
    "data": {"recipe": {"kind": "bcb"}},
    "task": {"kind": "recall"},
    "model": {"kind": "slotssm"},
}
RECONSTRUCT = {
    "data": {"recipe": {"kind": "bouncing"}},
    "task": {"kind": "reconstruct"},
    "model": {"kind": "oc-slotssm"},
}
PREDICT = {
    "data": {"recipe": {"kind": "bouncing", "colors": ["white"]}},
    "task": {"kind": "predict"},
    "model": {"kind": "slotssm"},
}
BASELINES = (
    SingleStateSSMConfig(),
    SplitSSMConfig(),
    TransformerConfig(),
    SlotTransformerConfig(),
    SlotRNNConfig(),
    RIMConfig(),
)


@pytest.fixture(params=["recall", "reconstruct", "predict"])
def run(request: pytest.FixtureRequest) -> RunConfig:
    return RunConfig.model_validate({"recall": RECALL, "reconstruct": RECONSTRUCT, "predict": PREDICT}[request.param])


def refusal(document: dict[str, Any], *assignments: str) -> str:
    """The one line with which a change to a run is refused, before there are data."""
    config = RunConfig.model_validate(document)
    with pytest.raises(InputError) as caught:
        resolve(Request(assignments=assignments), config)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- saved and loaded -------------------------------------------------------------------------------------


def test_a_saved_run_loads_as_the_same_run(run: RunConfig) -> None:
    saved = json.dumps(run.model_dump(mode="json"), allow_nan=False)
    assert load(RunConfig, json.loads(saved), "config.json") == run


def test_configurations_do_not_change(run: RunConfig) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        run.train.num_steps = 5


def test_every_field_is_explained(run: RunConfig) -> None:
    parts = [run, run.data, run.data.recipe, run.task, run.model, run.train]
    parts += [MambaConfig(), Mamba2Config(), S4DConfig(), S5Config(), *BASELINES]
    obvious = {"kind", "data", "task", "model", "train", "recipe", "time_mixer"}
    for part in parts:
        for name, field in type(part).model_fields.items():
            assert field.description or name in obvious, f"{type(part).__name__}.{name}"


def test_empty_splits_are_left_out() -> None:
    config = RecipeData(recipe=BCBRecipe(), num_train=3, num_val=0, num_test=1)
    assert config.num_episodes == {"train": 3, "test": 1}


# --- overriding -------------------------------------------------------------------------------------------


def test_a_change_leaves_everything_else(run: RunConfig) -> None:
    changed = override(run, parse_assignments(["train.num_steps=7", "data.seed=5"]), "--set")
    assert (changed.train.num_steps, changed.data.seed) == (7, 5)
    document, expected = changed.model_dump(), run.model_dump()
    expected["train"]["num_steps"], expected["data"]["seed"] = 7, 5
    assert document == expected


def test_a_change_of_kind_starts_that_part_afresh() -> None:
    run = RunConfig.model_validate(RECALL | {"model": {"kind": "slotssm", "num_layers": 9, "num_encoder_layers": 2}})
    changed = override(run, {"model": {"kind": "oc-slotssm", "num_slots": 4}}, "--set")
    assert (changed.model.kind, changed.model.num_slots, changed.model.num_layers) == ("oc-slotssm", 4, 3)
    assert override(run, {"model": {"kind": "slotssm"}}, "--set") == run


@pytest.mark.parametrize("mixer", [Mamba2Config(), S4DConfig(), S5Config()], ids=lambda mixer: mixer.kind)
def test_a_time_mixer_is_chosen_by_its_kind_alone(run: RunConfig, mixer: Any) -> None:
    old = override(run, {"model": {"time_mixer": {"d_state": 9}}}, "--set")
    chosen = override(old, parse_assignments([f"model.time_mixer.kind={mixer.kind}"]), "--set")
    assert chosen.model.time_mixer == mixer
    assert override(chosen, {"model": {"time_mixer": {"kind": "mamba"}}}, "--set") == run
    saved = json.dumps(chosen.model_dump(mode="json"), allow_nan=False)
    assert load(RunConfig, json.loads(saved), "config.json") == chosen


@pytest.mark.parametrize("model", BASELINES, ids=lambda model: model.kind)
def test_a_model_is_chosen_by_its_kind_alone(run: RunConfig, model: Any) -> None:
    # slots and layers of another model do not carry over, since a model of one slot would refuse them
    old = override(run, {"model": {"num_slots": 5, "num_layers": 7}}, "--set")
    chosen = override(old, parse_assignments([f"model.kind={model.kind}"]), "--set")
    assert chosen.model == model
    saved = json.dumps(chosen.model_dump(mode="json"), allow_nan=False)
    assert load(RunConfig, json.loads(saved), "config.json") == chosen


def test_a_curriculum_is_read_from_json_and_saved() -> None:
    run = RunConfig.model_validate(RECALL)
    chosen = override(run, parse_assignments(["task.curriculum=[[1, 20], [16, 5]]", "task.targets=prefix"]), "--set")
    assert chosen.task.curriculum == ((1, 20), (16, 5))
    saved = json.dumps(chosen.model_dump(mode="json"), allow_nan=False)
    assert load(RunConfig, json.loads(saved), "config.json") == chosen
    assert override(chosen, parse_assignments(["task.curriculum=[]", "task.targets=last"]), "--set") == run


def test_a_curriculum_must_leave_steps_for_the_datas_own_patches() -> None:
    found = refusal(RECALL, "task.curriculum=[[1, 20]]", "train.num_steps=20")
    assert found == "task.curriculum takes 20 steps and leaves none of train.num_steps 20"


def test_a_time_mixer_without_a_kind_is_mamba() -> None:
    model = OCSlotSSMConfig.model_validate({"time_mixer": {"d_state": 5}})
    assert model.time_mixer == MambaConfig(d_state=5)


def test_a_list_is_replaced_and_not_merged() -> None:
    run = RunConfig.model_validate(RECONSTRUCT)
    changed = override(run, parse_assignments(['data.recipe.shapes=["circle"]']), "--set")
    assert changed.data.recipe.shapes == ("circle",)


@pytest.mark.parametrize(
    ("assignments", "changes"),
    [
        (["a=1"], {"a": 1}),
        (["a.b.c=1e-3"], {"a": {"b": {"c": 1e-3}}}),
        (["a.b=1", "a.c=2", "a.b=3"], {"a": {"b": 3, "c": 2}}),
        (["a=text"], {"a": "text"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a="], {"a": ""}),
        (["a=true", "b=null", "c=[1, 2]", 'd="7"'], {"a": True, "b": None, "c": [1, 2], "d": "7"}),
        ([], {}),
    ],
)
def test_assignments_become_nested_changes(assignments: list[str], changes: dict[str, Any]) -> None:
    assert parse_assignments(assignments) == changes


@given(
    path=st.lists(st.text("abc_", min_size=1), min_size=1, max_size=4),
    value=st.integers() | st.booleans() | st.none() | st.lists(st.floats(allow_nan=False)) | st.text(),
)
def test_assignments_carry_any_json_value(path: list[str], value: object) -> None:
    found: Any = parse_assignments([f"{'.'.join(path)}={json.dumps(value)}"])
    for name in path:
        found = found[name]
    assert found == value


@pytest.mark.parametrize("assignment", ["train.num_steps", "=3", ""])
def test_malformed_assignments_are_refused(assignment: str) -> None:
    with pytest.raises(
        InputError, match=r"`assignments` .*: expected KEY\.PATH=VALUE, for example train\.num_steps=100"
    ):
        parse_assignments([assignment])


def test_a_value_has_no_keys_below_it() -> None:
    with pytest.raises(InputError, match=r"`assignments` a\.b=2: a was already set to a value"):
        parse_assignments(["a=1", "a.b=2"])


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "assignment", "message"),
    [
        (RECALL, "train.num_step=9", "`assignments`: unknown key train.num_step; did you mean num_steps?"),
        (RECALL, "train.batchsize=9", "`assignments`: unknown key train.batchsize; did you mean batch_size?"),
        (RECALL, "trian.num_steps=9", "`assignments`: unknown key trian; did you mean train?"),
        (RECALL, "model.num_slot=9", "`assignments`: unknown key model.num_slot; did you mean num_slots?"),
        (
            RECALL,
            "model.time_mixer.dstate=9",
            "`assignments`: unknown key model.time_mixer.dstate; did you mean d_state?",
        ),
        (RECALL, "data.recipe.radius=9", "`assignments`: unknown key data.recipe.radius; did you mean radius_px?"),
        (RECONSTRUCT, "data.recipe.color=9", "`assignments`: unknown key data.recipe.color; did you mean colors?"),
        (RECONSTRUCT, "data.num_tests=9", "`assignments`: unknown key data.num_tests; did you mean num_test?"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_name(
    document: dict[str, Any], assignment: str, message: str
) -> None:
    assert refusal(document, assignment) == message


def test_an_unknown_key_like_no_other_is_refused_with_all_names() -> None:
    message = refusal(RECALL, "model.time_mixer.zzz=1")
    assert message == "`assignments`: unknown key model.time_mixer.zzz; there are kind, d_state, d_conv, expand"


def test_a_key_of_another_kind_is_unknown() -> None:
    assert "unknown key model.num_encoder_layers" in refusal(RECONSTRUCT, "model.num_encoder_layers=2")


@pytest.mark.parametrize(
    ("document", "assignment", "message"),
    [
        (RECALL, "train.num_steps=many", "`assignments`: train.num_steps: Input should be a valid integer"),
        (RECALL, "train.num_steps=1.5", "`assignments`: train.num_steps: Input should be a valid integer"),
        (RECALL, "train.num_steps=0", "`assignments`: train.num_steps: Input should be greater than or equal to 1"),
        (RECALL, "train.learning_rate=NaN", "`assignments`: train.learning_rate: Input should be a finite number"),
        (RECALL, "train.weight_decay=Infinity", "`assignments`: train.weight_decay: Input should be a finite number"),
        (RECALL, "train=3", "`assignments`: train: Input should be a valid dictionary"),
        (
            RECALL,
            "data.recipe.rule=latest",
            "`assignments`: data.recipe.rule: Input should be 'earliest' or 'frequent'",
        ),
        (RECALL, "data.recipe.kind=movi", "`assignments`: data.recipe: kind 'movi' is unknown; there are "),
        (RECALL, "model.kind=rnn", "`assignments`: model: kind 'rnn' is unknown; did you mean slot-rnn?"),
        (RECALL, "model.time_mixer.kind=rnn", "`assignments`: model.time_mixer: kind 'rnn' is unknown; there are "),
        (RECALL, "model.time_mixer=rnn", "`assignments`: model.time_mixer: a time mixer is a table with the key kind"),
        (RECALL, "data.seed=-1", "`assignments`: data.seed: Input should be greater than or equal to 0"),
        (RECALL, "name=../up", "`assignments`: name: String should match pattern"),
        (RECALL, "model.num_heads=5", "`assignments`: model: num_heads 5 does not divide slot_dim 64"),
        (
            RECALL,
            "data.recipe.patches_per_side=7",
            "`assignments`: data.recipe: patches_per_side 7 does not divide size_px 64",
        ),
        (RECALL, "data.recipe.kind=bouncing", "task 'recall' needs Blinking Color Balls (generator 'bcb')"),
        (RECALL, "task.piece_px=5", "task.piece_px 5 does not divide the frame of 64 x 64 px; use a divisor"),
        (
            RECALL,
            "task.piece_px=32",
            "task.piece_px 32 does not divide the patch of 16 px (64 px in 4 patches per side, ",
        ),
        (RECALL, "task.patches_per_side=3", "task.piece_px 4 does not divide the patch of 21.3333 px (64 px in 3 "),
        (RECALL, "train.clip_len=2", "task 'recall' reads whole episodes: train.clip_len must be 0"),
        (RECONSTRUCT, "train.clip_len=31", "train.clip_len 31 exceeds the 30 frames of an episode"),
        (RECONSTRUCT, "data.recipe.size_px=62", "frames of 62 x 62 px must have sides that are multiples of 4"),
        (RECONSTRUCT, "task.encoder_downsample=3", "task.encoder_downsample 3 is not a power of two"),
        (
            RECONSTRUCT,
            'data.recipe.colors=["pink"]',
            "`assignments`: data.recipe.colors.0: Input should be 'white', 'red'",
        ),
        (RECONSTRUCT, "data.recipe.min_objects=6", "`assignments`: data.recipe: min_objects 6 exceeds max_objects 5"),
        (
            RECONSTRUCT,
            "data.recipe.radii_px=[9, 6]",
            "`assignments`: data.recipe: radii_px must be two ascending values",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_the_fault(
    document: dict[str, Any], assignment: str, message: str
) -> None:
    assert refusal(document, assignment).startswith(message)


@pytest.mark.parametrize(
    ("kind", "assignment", "message"),
    [
        ("mamba2", "headdim=24", "`assignments`: model: time_mixer.headdim 24 does not divide expand * slot_dim = 128"),
        ("mamba2", "ngroups=3", "`assignments`: model: time_mixer.ngroups 3 does not divide the 8 heads of Mamba-2"),
        ("mamba2", "expand=0.01", "`assignments`: model: time_mixer.expand must leave at least one channel"),
        (
            "mamba2",
            "chunk_size=0",
            "`assignments`: model.time_mixer.chunk_size: Input should be greater than or equal to 1",
        ),
        ("mamba2", "head_dim=8", "`assignments`: unknown key model.time_mixer.head_dim; did you mean headdim?"),
        ("s4d", "d_state=5", "`assignments`: model.time_mixer.d_state: Input should be a multiple of 2"),
        ("s4d", "d_conv=4", "`assignments`: unknown key model.time_mixer.d_conv"),
        ("s5", "dt_min=0.2", "`assignments`: model.time_mixer: dt_min 0.2 exceeds dt_max 0.1"),
    ],
)
def test_a_wrong_time_mixer_is_refused(kind: str, assignment: str, message: str) -> None:
    found = refusal(RECALL, f"model.time_mixer.kind={kind}", f"model.time_mixer.{assignment}")
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task.curriculum=[[3, 9]]", "task.piece_px 4 does not divide the patch of 21.3333 px"),
        (
            "task.curriculum=[[1, 9], [32, 9]]",
            "task.piece_px 4 does not divide the patch of 2 px (64 px in 32 patches per side, ",
        ),
        ("task.curriculum=[[128, 9]]", "task.piece_px 4 does not divide the patch of 0.5 px"),
        ("task.curriculum=[[0, 9]]", "`assignments`: task.curriculum.0.0: Input should be greater than 0"),
        ("task.curriculum=[[1, 9], [2, 0]]", "`assignments`: task.curriculum.1.1: Input should be greater than 0"),
        ("task.curriculum=[[1]]", "`assignments`: task.curriculum.0.1: Field required"),
        ("task.curriculum=[1, 9]", "`assignments`: task.curriculum.0: Input should be a valid tuple"),
        ("task.targets=first", "`assignments`: task.targets: Input should be 'last' or 'prefix'"),
        ("task.target=prefix", "`assignments`: unknown key task.target; did you mean targets?"),
    ],
)
def test_wrong_aids_of_recalling_are_refused(assignment: str, message: str) -> None:
    assert refusal(RECALL, assignment).startswith(message)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task.num_context=30", "task.num_context 30 leaves nothing to predict of 30 frames"),
        ("task.num_context=0", "`assignments`: task.num_context: Input should be greater than or equal to 1"),
        ("data.recipe.num_frames=10", "task.num_context 10 leaves nothing to predict of 10 frames"),
        ("train.clip_len=1", "task 'predict' needs clips of at least 2 frames: train.clip_len is too small"),
        ("train.clip_len=31", "train.clip_len 31 exceeds the 30 frames of an episode"),
        ("task.piece_px=5", "task.piece_px 5 does not divide the frame of 64 x 64 px"),
        ('data.recipe.colors=["red"]', "task.loss 'bce' is for white objects on black; use 'mse' or 'ce'"),
        ('data.recipe.colors=["white", "red"]', "task.loss 'bce' is for white objects on black; use"),
        ("task.loss=l1", "`assignments`: task.loss: Input should be 'bce', 'mse' or 'ce'"),
        ("data.recipe.lighting=0.5", "task.loss 'bce' needs plain white objects on black, without"),
        ('data.recipe.textures=["noise"]', "task.loss 'bce' needs plain white objects on black"),
        ('data.recipe.backgrounds=["plain", "noise"]', "task.loss 'bce' needs plain white objects on"),
        ("task.feedback=max", "`assignments`: task.feedback: Input should be 'mean' or 'mode'"),
        ("task.max_first_frame=-1", "`assignments`: task.max_first_frame: Input should be greater than or equal to 0"),
        ("task.curriculum=[]", "`assignments`: unknown key task.curriculum"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_refused(assignment: str, message: str) -> None:
    assert refusal(PREDICT, assignment).startswith(message)


def test_the_last_value_that_can_be_predicted_is_accepted() -> None:
    run = RunConfig.model_validate(PREDICT)
    changes = ["task.num_context=29", "train.clip_len=2", "task.loss=mse", 'data.recipe.colors=["red"]']
    assert override(run, parse_assignments(changes), "--set").task.num_context == 29


@pytest.mark.parametrize(
    ("kind", "assignment", "message"),
    [
        ("single-state-ssm", "num_slots=2", "`assignments`: model.num_slots: Input should be 1"),
        ("single-state-ssm", "num_slots=0", "`assignments`: model.num_slots: Input should be 1"),
        ("transformer", "num_slots=2", "`assignments`: model.num_slots: Input should be 1"),
        ("rim", "num_active=7", "`assignments`: model: num_active 7 exceeds num_slots 6"),
        ("rim", "num_slots=3", "`assignments`: model: num_active 4 exceeds num_slots 3"),
        ("rim", "num_active=0", "`assignments`: model.num_active: Input should be greater than or equal to 1"),
        ("slot-rnn", "num_active=2", "`assignments`: unknown key model.num_active"),
        ("slot-transformer", "time_mixer.d_state=4", "`assignments`: unknown key model.time_mixer"),
        ("slot-rnn", "layer_mlp_ratio=0", "`assignments`: model.layer_mlp_ratio: Input should be greater than 0"),
        ("split-ssm", "layer_mlp_ratio=NaN", "`assignments`: model.layer_mlp_ratio: Input should be a finite number"),
        ("slotssm", "layer_mlp_ratio=wide", "`assignments`: model.layer_mlp_ratio: Input should be a valid number"),
        ("slot-transformer", "num_heads=3", "`assignments`: model: num_heads 3 does not divide slot_dim 64"),
        ("transformer", "slot_dim=30", "`assignments`: model: num_heads 4 does not divide slot_dim 30"),
    ],
)
def test_a_wrong_model_is_refused(kind: str, assignment: str, message: str) -> None:
    assert refusal(RECALL, f"model.kind={kind}", f"model.{assignment}").startswith(message)


@pytest.mark.parametrize(
    "ratios", [("mlp_ratio=0.01",), ("layer_mlp_ratio=0.01",), ("mlp_ratio=0.01", "layer_mlp_ratio=2")]
)
def test_mlps_without_a_channel_are_refused(ratios: tuple[str, ...]) -> None:
    message = refusal(RECALL, *(f"model.{ratio}" for ratio in ratios))
    assert message.startswith("`assignments`: model: ")
    assert "mlp_ratio must leave at least one channel of slot_dim" in message


def test_missing_parts_are_named() -> None:
    with pytest.raises(InputError, match=r"^run\.toml: model: Field required$"):
        load(RunConfig, {key: RECALL[key] for key in ("data", "task")}, "run.toml")


def test_a_typo_is_told_before_what_it_makes_missing() -> None:
    document = {"data": RECALL["data"], "task": RECALL["task"], "modle": RECALL["model"]}
    with pytest.raises(InputError, match="unknown key modle; did you mean model"):
        load(RunConfig, document, "run.toml")


# --- recipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "patches", "length"), [(6, 4, 80), (11, 16, 2560), (2, 1, 1)])
def test_sequence_length_is_context_frames_times_patches(frames: int, patches: int, length: int) -> None:
    assert BCBRecipe(num_frames=frames, patches_per_side=patches).sequence_length == length


def test_more_balls_than_fit_are_refused_with_how_many_do() -> None:
    most = int(0.45 * 64**2 / (math.pi * 5.68**2))
    assert BCBRecipe(num_balls=most).num_balls == most
    with pytest.raises(InputError, match=rf"{most + 1} objects of radius 5.68 px do not fit .*: at most {most}; use"):
        load(BCBRecipe, {"num_balls": most + 1}, "--balls")


def test_objects_that_pass_each_other_need_no_room() -> None:
    crowd = {"max_objects": 30, "radii_px": (6, 9)}
    assert BouncingRecipe(**crowd, contact="occlude").max_objects == 30
    with pytest.raises(InputError, match="30 objects of radius 9 px do not fit into 64 px: at most 7"):
        load(BouncingRecipe, crowd, "--objects")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radii_px": (6, 29)}, "radius 29 px is too large for a frame of 64 px"),
        ({"radii_px": (0, 5)}, "radii_px must be positive"),
        ({"radii_px": (6, 7, 8)}, "two ascending values"),
        ({"radii_px": ()}, "at least 1 item"),
        ({"max_speed_px_per_frame": 33}, "a speed of 33 px/frame crosses half the frame at once"),
        ({"joint_speed_px_per_frame": 40}, "a speed of 40 px/frame crosses half the frame at once"),
        ({"min_speed_px_per_frame": 4}, "min_speed_px_per_frame exceeds max_speed_px_per_frame"),
        ({"radii_px": (math.nan, 7)}, "finite number"),
        ({"radii_px": (6, math.inf)}, "finite number"),
        ({"max_speed_px_per_frame": math.nan}, "finite number"),
        ({"backgrounds": ["wood"]}, "backgrounds.0: Input should be 'plain', 'gradient', 'stripes', 'checker' or"),
        ({"textures": []}, "at least 1 item"),
        ({"textures": ["noise"], "radii_px": (2, 5)}, "radius 3 px or more, not 2 px; use larger radii_px"),
        (
            {"backgrounds": ["noise"], "size_px": 12, "radii_px": (2, 2), "min_objects": 1, "max_objects": 1},
            "backgrounds need a frame of 16 px or more, not 12 px; use",
        ),
        ({"lighting": 0.91}, "less than or equal to 0.9"),
        ({"lighting": math.nan}, "finite number"),
        ({"outside_px": 17}, "too narrow for objects of radius 9 px to leave the frame; use 0 or at least 18"),
        ({"outside_px": 65}, "outside_px 65 exceeds size_px 64"),
        ({"camera_px": 33}, "camera_px 33 exceeds half of size_px 64"),
        ({"camera_px": 0.5}, "camera_speed_px_per_frame 1 exceeds camera_px 0.5"),
        ({"camera_speed_px_per_frame": 0}, "greater than 0"),
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(BouncingRecipe, fields, "recipe")


def test_only_pixels_of_the_palette_are_classified() -> None:
    run = RunConfig.model_validate(PREDICT)
    moved, spec = resolve(Request(assignments=("data.recipe.camera_px=8", "data.recipe.outside_px=20")), run)
    assert (moved.task.loss, spec.palette) == ("bce", ((0, 0, 0), (255, 255, 255)))
    lit, spec = resolve(Request(assignments=("data.recipe.lighting=0.5", "task.loss=mse")), run)
    assert spec.palette == ()
    with pytest.raises(InputError, match=r"task\.loss 'ce' needs data with a palette, .*; use 'mse'"):
        resolve(Request(assignments=("task.loss=ce",)), lit)


def test_a_preset_of_bouncing_shapes_is_known_by_its_name() -> None:
    assert {"easy", "medium", "hard", "white-balls"} == set(BOUNCING_PRESETS)
    with pytest.raises(InputError, match=r"`preset` harder is unknown; did you mean hard\?"):
        bouncing_fields("harder", 30, 64)
    bouncing_fields("hard", 30, 64)["radii_px"].clear()
    assert BOUNCING_PRESETS["hard"]["radii_px"]


# --- TOML -------------------------------------------------------------------------------------------------


def test_toml_changes_a_run(tmp_path: Path, run: RunConfig) -> None:
    (tmp_path / "change.toml").write_text('name = "x"\n[train]\nnum_steps = 7\nlearning_rate = 2e-3\n')
    changed = override(run, read_toml(tmp_path / "change.toml"), "change.toml")
    assert (changed.name, changed.train.num_steps, changed.train.learning_rate) == ("x", 7, 2e-3)
    assert changed.model == run.model


@pytest.mark.parametrize("content", [b"train = ", b"[train\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_bad_toml_is_refused_with_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"configuration file .*bad\.toml is not readable TOML: ") as caught:
        read_toml(tmp_path / "bad.toml")
    assert "\n" not in str(caught.value)


def test_missing_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"configuration file .*none\.toml does not exist"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"is not readable TOML: .*Is a directory"):
        read_toml(tmp_path)


def test_videos_from_a_file_have_no_colours_to_classify() -> None:
    spec = spec_from_layout(standard_layout(num_frames=8, height=16, width=16, num_objects=2), {})
    run = preset("tiny-balls").replace(data=FileData(path="videos.h5"))
    check_run(run, spec)
    with pytest.raises(InputError, match="'ce' needs data with a palette, which these do not have"):
        check_run(override(run, {"task": {"loss": "ce"}}, "test"), spec)
    with pytest.raises(InputError, match=r"task 'recall' needs Blinking Color Balls \(generator 'bcb'\)"):
        check_run(preset("tiny-bcb").replace(data=FileData(path="videos.h5")), spec)
