"""Inputs that a layer cannot take are refused in words, with the annotations' own check out of the way."""

import jaxtyping
import numpy as np
import pytest
import torch

from slotssm.errors import InputError
from slotssm.layers import (
    RIM,
    S4D,
    S5,
    CausalSlotAttention,
    CNNEncoder,
    InvertedAttention,
    Mamba,
    Mamba2,
    PieceDecoder,
    PiecePainter,
    PieceTokenizer,
    SlotAttention,
    SlotEncoder,
    SlotGRU,
    SlotMixer,
    SpatialBroadcastDecoder,
)
from slotssm.models import ModelState
from slotssm.registry import MODELS

DIM, SLOTS = 8, 3
TIME_MIXERS = {
    "Mamba": Mamba(DIM, d_state=4),
    "Mamba2": Mamba2(DIM, d_state=4, headdim=4),
    "S4D": S4D(DIM, d_state=4),
    "S5": S5(DIM, d_state=4),
}
JOINT = {
    "CausalSlotAttention": CausalSlotAttention(DIM, 2),
    "SlotGRU": SlotGRU(DIM, 2, 2.0),
    "RIM": RIM(DIM, SLOTS, 2, 2),
}
INVERTED, ENCODER = InvertedAttention(DIM), SlotEncoder(SLOTS, DIM, 1, 2, 2.0)
CORRECTOR, MIXER = SlotAttention(DIM, 1, 2.0), SlotMixer(DIM, 2, 2.0)
PIECES = PieceDecoder(4, 4, 2, 1, DIM, 1, 2, 2.0)
BROADCAST = SpatialBroadcastDecoder(DIM, PiecePainter(4, 4, DIM, (4,), 2))
SLOTS_OF_STEPS = torch.zeros(2, SLOTS, DIM)

CALLS = {f"{name}.forward": (mixer, "[B, L, 8]", (2, 5, DIM)) for name, mixer in TIME_MIXERS.items()}
CALLS |= {
    f"{name}.step": (lambda u, mixer=mixer: mixer.step(u, mixer.initial_state(2)), "[B, 8]", (2, DIM))
    for name, mixer in TIME_MIXERS.items()
}
CALLS |= {
    f"{name}.forward": (mixer, f"[B, T, {'M' if name == 'RIM' else 'K'}, 8]", (2, 5, SLOTS, DIM))
    for name, mixer in JOINT.items()
}
CALLS |= {
    f"{name}.step": (
        lambda u, mixer=mixer: mixer.step(u, mixer.initial_state(2, SLOTS)),
        f"[B, {'M' if name == 'RIM' else 'K'}, 8]",
        (2, SLOTS, DIM),
    )
    for name, mixer in JOINT.items()
}
CALLS |= {
    "SlotEncoder": (lambda tokens: ENCODER(None, tokens), "[B, M, 8]", (2, 4, DIM)),
    "InvertedAttention, tokens": (lambda tokens: INVERTED(SLOTS_OF_STEPS, tokens), "[B, M, 8]", (2, 4, DIM)),
    "InvertedAttention, slots": (lambda slots: INVERTED(slots, torch.zeros(2, 4, DIM)), "[B, K, 8]", (2, SLOTS, DIM)),
    "SlotAttention": (lambda slots: CORRECTOR(slots, torch.zeros(2, 4, DIM)), "[B, K, 8]", (2, SLOTS, DIM)),
    "SlotMixer": (MIXER, "[B, K, 8]", (2, SLOTS, DIM)),
    "PieceDecoder": (PIECES, "[B, K, 8]", (2, SLOTS, DIM)),
    "SpatialBroadcastDecoder": (BROADCAST, "[B, K, 8]", (2, SLOTS, DIM)),
    "frames of PieceTokenizer": (PieceTokenizer(4, 6, 1, 2, DIM), "[B, T, 3, 4, 6]", (2, 5, 3, 4, 6)),
    "frames of CNNEncoder": (CNNEncoder(4, 6, (4,), 2, DIM), "[B, T, 3, 4, 6]", (2, 5, 3, 4, 6)),
}


@pytest.fixture(autouse=True)
def _annotations_unchecked():
    """As for a user: shapes in signatures are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_width_number_of_axes_or_dtype_is_refused_and_the_right_one_is_named(call):
    function, expected, shape = CALLS[call]
    function(torch.zeros(shape))
    who = "frames" if call.startswith("frames") else call.split(".")[0].split(",")[0]
    wrong = {
        "width": torch.zeros(*shape[:-1], shape[-1] + 1),
        "one axis less": torch.zeros(shape[1:]),
        "one axis more": torch.zeros(1, *shape),
        "integers": torch.zeros(shape, dtype=torch.int64),
        "complex": torch.zeros(shape, dtype=torch.complex64),
        "bytes": torch.zeros(shape, dtype=torch.uint8),
    }
    for values in wrong.values():
        with pytest.raises(InputError) as error:
            function(values)
        message = str(error.value)
        assert message.startswith(who)
        assert f"floating-point numbers of shape {expected}" in message
        dtype = str(values.dtype).removeprefix("torch.")
        assert message.endswith(f"not {dtype} of shape {list(values.shape)}")


def test_inverted_attention_needs_slots():
    with pytest.raises(InputError, match="needs learned queries"):
        INVERTED(None, torch.zeros(2, 4, DIM))


def test_slot_attention_without_iterations_is_refused():
    with pytest.raises(InputError, match="at least one iteration, not 0"):
        SlotAttention(DIM, 0, 2.0)


@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("frames")])
def test_another_library_s_arrays_and_another_precision_are_refused(call):
    function, _, shape = CALLS[call]
    name = call.split(".")[0].split(",")[0]
    with pytest.raises(InputError, match=f"^{name} takes torch tensors, not ndarray"):
        function(np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=f"^{name} has parameters of float32 .* not float64"):
        function(torch.zeros(shape, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        function(torch.zeros(shape, dtype=torch.bfloat16))


@pytest.mark.slow
def test_a_layer_with_decay_rates_of_higher_precision_takes_inputs_of_the_lower():
    mixer = Mamba(DIM, d_state=4, backend="reference").double()
    mixer.A_log.data = mixer.A_log.data.float()
    mixer(torch.zeros(1, 2, DIM, dtype=torch.float64))


@pytest.mark.parametrize("name", [*TIME_MIXERS, *JOINT])
def test_a_state_of_another_batch_or_kind_is_refused(name):
    mixer = (TIME_MIXERS | JOINT)[name]
    inner = (SLOTS, DIM) if name in JOINT else (DIM,)
    state = mixer.initial_state(3, SLOTS) if name in JOINT else mixer.initial_state(3)
    for call, values in ((mixer, torch.zeros(2, 5, *inner)), (mixer.step, torch.zeros(2, *inner))):
        with pytest.raises(InputError, match=f"^{name} takes a state for the 2 sequences of its input, not for 3$"):
            call(values, state)
        with pytest.raises(InputError, match=f"^{name} takes the state that an earlier call returned, not dict$"):
            call(values, {})


@pytest.mark.parametrize("name", TIME_MIXERS)
@pytest.mark.parametrize("size", ["d_model", "d_state"])
def test_a_size_of_zero_is_refused(name, size):
    with pytest.raises(InputError, match=f"^{name} needs {size} of at least 1, not 0$"):
        type(TIME_MIXERS[name])(**{"d_model": DIM, size: 0})


@pytest.mark.parametrize("kind", ["oc-slotssm", "savi"])
def test_models_refuse_what_is_not_their_state(kind):
    model = MODELS[kind].code(num_slots=SLOTS, slot_dim=DIM, num_heads=2, num_layers=1)
    for call, tokens in ((model, torch.zeros(2, 5, 4, DIM)), (model.step, torch.zeros(2, 4, DIM))):
        with pytest.raises(InputError, match="takes the state of 1 layer that an earlier call returned, not Tensor"):
            call(tokens, torch.zeros(2))
        with pytest.raises(InputError, match=r"not one of 2$"):
            call(tokens, ModelState((TIME_MIXERS["S5"].initial_state(2),) * 2, 1))
        with pytest.raises(InputError, match="takes torch tensors, not list"):
            call([1.0])
