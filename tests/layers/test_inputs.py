"""Inputs that a layer cannot take are refused in words, with the annotations' own check out of the way."""

import jaxtyping
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
    PieceTokenizer,
    SlotAttention,
    SlotEncoder,
    SlotGRU,
    SlotMixer,
    SpatialBroadcastDecoder,
    piece_painter,
)

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
BROADCAST = SpatialBroadcastDecoder(4, 4, DIM, piece_painter(DIM, (4,), 2), upsampling=2)
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
    "SlotAttention": (lambda slots: CORRECTOR(slots, torch.zeros(2, 4, 2 * DIM)), "[B, K, 8]", (2, SLOTS, DIM)),
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
