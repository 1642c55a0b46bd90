"""What code from outside registers is configured, built and run like what comes with the package."""

import json
from typing import Literal

import pytest
import torch
from torch import nn

from slotssm.config import FileData, ModelConfig, RunConfig, TaskConfig, TimeMixerConfig
from slotssm.data.spec import DataSpec
from slotssm.documents import Config, load, override
from slotssm.errors import InputError
from slotssm.experiments.presets import preset
from slotssm.models import ModelOutput, ModelState, OCSlotSSM, OCSlotSSMConfig, SlotModel, SlotSSMConfig, build_model
from slotssm.plugins import needed_plugins
from slotssm.registry import (
    MODELS,
    REGISTRIES,
    TASKS,
    TIME_MIXERS,
    Registry,
    entries_of,
    register_model,
    register_task,
    register_time_mixer,
    registering_for,
)
from slotssm.tasks import Outputs, Recall, RecallConfig, ReconstructConfig, Task, build_task
from slotssm.tasks.task import as_pixels

SPEC = DataSpec(num_frames=4, height=8, width=12)
FILE = FileData(path="videos.h5")


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What a test registers is forgotten after it."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_entries", dict(registry.entries()))


class LeakyConfig(TimeMixerConfig):
    kind: Literal["leaky"] = "leaky"
    keep: float = 0.5

    def check_width(self, slot_dim: int) -> None:
        if slot_dim > 64:
            raise ValueError(f"slot_dim {slot_dim} is too wide for leaky slots")


class Leaky(nn.Module):
    """h = keep h + (1 - keep) u, one step after the other."""

    def __init__(self, dim: int, keep: float) -> None:
        super().__init__()
        self.dim, self.keep = dim, nn.Parameter(torch.tensor(keep))

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, self.dim),)

    def step(self, u, state):
        h = self.keep * state[0] + (1 - self.keep) * u
        return h, (h,)

    def forward(self, u, state=None):
        state, outputs = state or self.initial_state(len(u)), []
        for each in u.unbind(1):
            h, state = self.step(each, state)
            outputs.append(h)
        return torch.stack(outputs, 1), state


class CountingConfig(ModelConfig):
    kind: Literal["counting"] = "counting"
    bias: float = 1.0


class Counting(SlotModel):
    """Slots that hold the number of their step."""

    def __init__(self, config: CountingConfig) -> None:
        super().__init__(config.num_slots, config.slot_dim)
        self.bias = nn.Parameter(torch.tensor(config.bias))

    def forward(self, tokens, state=None):
        state = state or self.initial_state(len(tokens))
        steps = torch.arange(state.num_steps, state.num_steps + tokens.shape[1]) + self.bias
        slots = steps[None, :, None, None].expand(len(tokens), -1, self.num_slots, self.slot_dim)
        return ModelOutput(slots, None, ModelState((), state.num_steps + tokens.shape[1]))

    def step(self, tokens, state=None):
        return self(tokens[:, None], state)

    def initial_state(self, batch_size):
        return ModelState((), 0)


class MeanColorConfig(TaskConfig):
    kind: Literal["mean-color"] = "mean-color"
    scale: float = 1.0


class MeanColor(Task):
    """The mean colour of every frame from its slots."""

    outputs = frozenset({"slots", "color"})

    def __init__(self, config, model, model_config, data) -> None:
        super().__init__()
        self.scale, self.model = config.scale, model
        self.encoder = nn.Linear(3 * data.height * data.width, model_config.slot_dim)
        self.head = nn.Linear(model_config.slot_dim, 3)

    @classmethod
    def check(cls, run, data) -> None:
        if data.num_channels != 3:
            raise InputError("task 'mean-color' needs frames of three channels")

    def forward(self, batch):
        pixels = as_pixels(batch["frames"])
        return (self.predict(batch["frames"])["color"] - pixels.mean((3, 4))).square().mean() * self.scale, {}

    def predict(self, frames, state=None):
        output = self.model(self.encoder(as_pixels(frames).flatten(2))[:, :, None], state)
        return Outputs(output.state, slots=output.slots, color=self.head(output.slots.mean(2)))


@pytest.fixture
def leaky() -> type[Leaky]:
    return register_time_mixer("leaky", LeakyConfig)(Leaky)


@pytest.fixture
def counting() -> type[Counting]:
    return register_model("counting", CountingConfig)(Counting)


@pytest.fixture
def mean_color() -> type[MeanColor]:
    return register_task("mean-color", MeanColorConfig)(MeanColor)


def saved_and_loaded(run: RunConfig) -> RunConfig:
    document = json.loads(json.dumps(run.model_dump(mode="json")))
    return load(RunConfig, document, "config.json")


# --- used in a run ----------------------------------------------------------------------------------------


def test_a_time_mixer_from_outside(leaky):
    run = override(preset("tiny-oc"), {"model": {"time_mixer": {"kind": "leaky", "keep": 0.25}}}, "test")
    assert run.model.time_mixer == LeakyConfig(keep=0.25)
    assert saved_and_loaded(run) == run
    model = build_model(run.model)
    assert isinstance(model, OCSlotSSM)
    assert [layer.time_mixer.keep.item() for layer in model.layers] == [0.25, 0.25]
    assert all(isinstance(layer.time_mixer, leaky) for layer in model.layers)
    tokens = torch.randn(2, 4, 5, run.model.slot_dim)
    first = model(tokens[:, :3])
    torch.testing.assert_close(model.step(tokens[:, 3], first.state).slots[:, 0], model(tokens).slots[:, 3])


def test_its_check_of_the_width_is_asked(leaky):
    message = r"^test: model: slot_dim 128 is too wide for leaky slots$"
    with pytest.raises(InputError, match=message):
        override(preset("tiny-oc"), {"model": {"slot_dim": 128, "time_mixer": {"kind": "leaky"}}}, "test")


def test_a_model_from_outside(counting):
    run = override(preset("tiny-oc"), {"model": {"kind": "counting", "num_slots": 2, "slot_dim": 16}}, "test")
    assert run.model == CountingConfig(num_slots=2, slot_dim=16)
    assert saved_and_loaded(run) == run
    task = build_task(run, SPEC)
    assert type(task.model) is counting
    frames = torch.randint(0, 256, (2, 4, 8, 12, 3), dtype=torch.uint8)
    outputs = task.predict(frames)
    assert outputs["slots"][0, :, 1, 3].tolist() == [1, 2, 3, 4]
    assert outputs["masks"].shape == (2, 4, 2, 8, 12)
    assert "attention" not in task.outputs | set(outputs)


def test_a_task_from_outside(mean_color, counting):
    document = {
        "data": {"path": "videos.h5"},
        "task": {"kind": "mean-color", "scale": 0.5},
        "model": {"kind": "counting", "num_slots": 2, "slot_dim": 16},
    }
    run = load(RunConfig, document, "config.json")
    assert run == RunConfig(data=FILE, task=MeanColorConfig(scale=0.5), model=CountingConfig(num_slots=2, slot_dim=16))
    assert saved_and_loaded(run) == run
    task = build_task(run, SPEC)
    assert type(task) is mean_color
    loss, _ = task({"frames": torch.zeros(2, 4, 8, 12, 3, dtype=torch.uint8)})
    colors = task.predict(torch.zeros(2, 4, 8, 12, 3, dtype=torch.uint8))["color"]
    torch.testing.assert_close(loss, 0.5 * colors.square().mean())
    # its own check is made as that of any task
    with pytest.raises(InputError, match="needs frames of three channels"):
        build_task(run, SPEC.replace(num_channels=1))
    # and so are those that all runs have
    with pytest.raises(InputError, match=r"train\.clip_len 5 exceeds the 4 frames"):
        build_task(run.replace(train=run.train.replace(clip_len=5)), SPEC)


def test_a_task_of_the_package_can_be_the_base_of_another():
    class FadingConfig(RecallConfig):
        kind: Literal["fading"] = "fading"
        fade: int = 2

    class Fading(Recall):
        pass

    register_task("fading", FadingConfig)(Fading)
    run = override(preset("tiny-bcb"), {"task": {"kind": "fading", "fade": 3}}, "test")
    assert (type(run.task), run.task.fade) == (FadingConfig, 3)
    spec = SPEC.replace(width=8, palette=((0, 0, 0), (255, 255, 255)), rule="earliest")
    assert type(build_task(run, spec)) is Fading
    assert type(build_task(run.replace(task=RecallConfig()), spec)) is Recall


def test_runs_know_which_of_their_entries_come_from_outside(leaky, mean_color):
    model = OCSlotSSMConfig(time_mixer=LeakyConfig())
    run = RunConfig(data=FILE, task=MeanColorConfig(), model=model)
    assert [entry.name for entry in entries_of(run)] == ["mean-color", "oc-slotssm", "leaky"]
    here = leaky.__module__
    assert needed_plugins(run) == [
        {"plugin": here, "registers": "task mean-color"},
        {"plugin": here, "registers": "time mixer leaky"},
    ]
    assert needed_plugins(preset("tiny-oc")) == []


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"kind": "slotsm"}}, "model: kind 'slotsm' is unknown; did you mean slotssm?"),
        ({"task": {"kind": "reconstuct"}}, "task: kind 'reconstuct' is unknown; did you mean reconstruct?"),
        (
            {"model": {"time_mixer": {"kind": "mamba3"}}},
            "model.time_mixer: kind 'mamba3' is unknown; did you mean mamba",
        ),
        ({"data": {"recipe": {"kind": "bouncy"}}}, "data.recipe: kind 'bouncy' is unknown; did you mean bouncing?"),
        (
            {"task": {"kind": "zzzz"}},
            "task: kind 'zzzz' is unknown; there are depth, localise, predict, recall, reconstruct",
        ),
        ({"task": {"kind": 3}}, "task: kind 3 is unknown; there are depth, localise, predict, recall, reconstruct"),
        ({"task": {"kind": ["recall"]}}, "task: kind ['recall'] is unknown"),
    ],
)
def test_an_unknown_kind_is_refused_with_its_path_and_the_nearest_name(changes, message):
    with pytest.raises(InputError) as error:
        override(preset("tiny-oc"), changes, "run.toml")
    assert str(error.value).startswith(f"run.toml: {message}")


def test_names_of_entries_from_outside_are_suggested_too(counting):
    with pytest.raises(InputError, match=r"model: kind 'countin' is unknown; did you mean counting\?"):
        override(preset("tiny-oc"), {"model": {"kind": "countin"}}, "run.toml")
    with pytest.raises(InputError, match=r"^model 'countin' is unknown; did you mean counting\?$"):
        MODELS["countin"]


def test_names_of_the_package_are_taken():
    class OwnConfig(ModelConfig):
        kind: Literal["slotssm"] = "slotssm"

    before = MODELS["slotssm"]
    with pytest.raises(InputError, match=r"^model slotssm is already registered by slotssm; choose another name$"):
        register_model("slotssm", OwnConfig)(Counting)
    assert MODELS["slotssm"] is before


def test_names_of_other_plugins_are_taken_and_ones_own_can_be_registered_again(counting):
    here = counting.__module__
    with (
        registering_for("other.py"),
        pytest.raises(InputError, match=f"^model counting is already registered by {here}; choose another name$"),
    ):
        register_model("counting", CountingConfig)(Counting)

    class Again(Counting):
        pass

    register_model("counting", CountingConfig)(Again)
    assert MODELS["counting"].code is Again


def test_one_name_may_stand_for_a_model_and_a_task():
    class OwnConfig(ModelConfig):
        kind: Literal["recall"] = "recall"

    register_model("recall", OwnConfig)(Counting)
    assert MODELS["recall"].code is Counting
    assert TASKS["recall"].code is Recall


@pytest.mark.parametrize("other", [SlotSSMConfig, Config, ModelConfig])
def test_a_configuration_that_does_not_say_the_name_is_refused(other):
    with pytest.raises(InputError, match=r"^model counting: \w+ needs the field kind: Literal\['counting'\]$"):
        register_model("counting", other)(Counting)
    assert "counting" not in MODELS.entries()


def test_entries_belong_to_the_plugin_that_is_loaded():
    with registering_for("mine.py"):
        register_time_mixer("leaky", LeakyConfig)(Leaky)
    assert TIME_MIXERS["leaky"].plugin == "mine.py"
    assert TIME_MIXERS["mamba"].plugin is None


def test_what_comes_with_the_package_is_there_at_the_first_look():
    tasks = Registry("task", "slotssm.tasks")
    assert not tasks.known()
    assert set(TASKS.entries()) == {"depth", "localise", "predict", "recall", "reconstruct"}
    assert all(entry.plugin is None for registry in REGISTRIES for entry in registry.entries().values())
    for registry in REGISTRIES:
        for name, entry in registry.entries().items():
            assert entry.name == entry.config_class.model_fields["kind"].default == name
            assert registry.config_class({"kind": name}) is entry.config_class


def test_the_decorator_leaves_what_it_decorates_as_it_is():
    assert register_time_mixer("leaky", LeakyConfig)(Leaky) is Leaky
    assert ReconstructConfig is TASKS["reconstruct"].config_class
