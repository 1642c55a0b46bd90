"""Models are called with a configuration, or with its fields as keywords."""

import inspect
from typing import Literal

import pytest
import torch
from model_cases import CONFIGS, config_of

from slotssm.config import ModelConfig
from slotssm.errors import InputError
from slotssm.layers import S5Config
from slotssm.models import OCSlotSSM, OCSlotSSMConfig, SlotModel, build_model
from slotssm.registry import MODELS, Entry, register_model

BUILT_IN = [name for name, entry in MODELS.entries().items() if entry.plugin is None]


def test_every_registered_model_is_tried():
    assert set(BUILT_IN) == set(CONFIGS)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_fields_make_the_model_that_their_configuration_makes(kind):
    config = config_of(kind)
    fields = {name: getattr(config, name) for name in type(config).model_fields if name != "kind"}
    torch.manual_seed(1)
    expected = build_model(config).state_dict()
    torch.manual_seed(1)
    found = MODELS[kind].code(**fields).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_without_arguments_all_fields_have_their_defaults(kind):
    entry = MODELS[kind]
    assert entry.code().num_slots == entry.config_class().num_slots


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_misspelt_keyword_is_refused_with_the_nearest_field(kind):
    code = MODELS[kind].code
    with pytest.raises(InputError, match=rf"^{code.__name__}: unknown key slot_dims; did you mean slot_dim\?$"):
        code(slot_dims=8)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_signature_shows_the_fields(kind):
    parameters = inspect.signature(MODELS[kind].code).parameters
    fields = MODELS[kind].config_class.model_fields
    assert list(parameters) == ["config", *(name for name in fields if name != "kind")]
    assert parameters["num_slots"].default == fields["num_slots"].default


def test_a_nested_configuration_may_be_a_mapping():
    model = OCSlotSSM(slot_dim=8, num_heads=2, num_layers=1, time_mixer={"kind": "s5", "d_state": 4})
    config = OCSlotSSMConfig(slot_dim=8, num_heads=2, num_layers=1, time_mixer=S5Config(d_state=4))
    assert model.state_dict().keys() == OCSlotSSM(config=config).state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        ((), {"num_slots": 0}, "^OCSlotSSM: num_slots: .* greater than or equal to 1"),
        ((), {"slot_dim": 10}, "^OCSlotSSM: num_heads 4 does not divide slot_dim 10"),
        ((), {"kind": "savi"}, "^OCSlotSSM: kind: "),
        ((4,), {}, "^OCSlotSSM takes a OCSlotSSMConfig or its fields as keywords, such as num_slots=4, not int"),
        (({"num_slots": 4},), {}, "not dict"),
        ((OCSlotSSMConfig(),), {"num_slots": 4}, r"not both: write config.replace\(num_slots=...\)"),
        ((OCSlotSSMConfig(), 4), {}, "not OCSlotSSMConfig, int"),
    ],
)
def test_anything_else_is_refused(arguments, fields, message):
    with pytest.raises(InputError, match=message):
        OCSlotSSM(*arguments, **fields)


class ConstantConfig(ModelConfig):
    """A model of a plugin."""

    kind: Literal["constant"] = "constant"
    value: float
    """Of every slot."""


@pytest.fixture
def _forgotten():
    known: dict[str, Entry] = dict(MODELS.entries())
    yield
    MODELS._entries.clear()
    MODELS._entries.update(known)


@pytest.mark.usefixtures("_forgotten")
def test_models_of_plugins_take_keywords_too():
    @register_model("constant", ConstantConfig)
    class Constant(SlotModel):
        def __init__(self, settings):
            super().__init__(settings.num_slots, settings.slot_dim)
            self.value = settings.value

        def forward(self, tokens, state=None):
            raise NotImplementedError

        step = initial_state = forward

    assert Constant(value=2.0).value == Constant(settings=ConstantConfig(value=2.0)).value == 2.0
    assert MODELS["constant"].code is Constant
    with pytest.raises(InputError, match="Constant: value: Field required"):
        Constant()

    class Derived(Constant):
        """Not registered: it calls its parent as before."""

        def __init__(self):
            super().__init__(ConstantConfig(value=3.0))

    assert Derived().value == 3.0


@pytest.mark.usefixtures("_forgotten")
def test_a_function_may_make_the_model():
    @register_model("constant", ConstantConfig)
    def constant(config):
        return config.value

    assert MODELS["constant"].code(ConstantConfig(value=1.0)) == constant(value=1.0) == 1.0
